"""The baseline's answers, and how good a variant's are beside them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.agreement import Comparison, Kind
from flyweight.compressor.evaluate.asking import Answers, Asking
from flyweight.compressor.evaluate.calibration_error import Scale, scale_of
from flyweight.compressor.evaluate.churn import churn
from flyweight.compressor.evaluate.intervals import Interval, paired_difference, wilson
from flyweight.compressor.evaluate.labels import Reading, Task, check_regression, find_task
from flyweight.compressor.evaluate.mcnemar import mcnemar
from flyweight.compressor.evaluate.per_class import per_class
from flyweight.compressor.evaluate.quality import Quality, metric_of, score
from flyweight.compressor.evaluate.tally import Tally, unlabelled_task
from flyweight.compressor.sessions import Session

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """The quality of a model, and the classes it predicts for each sample; None where it predicts none."""

    quality: Quality
    predictions: Array | None


class Reference:
    """The baseline's answers on the evaluation data; used from one thread.

    They lie on disk, in `folder`, so that memory does not grow with the data; predictions are kept.
    """

    def __init__(
        self,
        asking: Asking,
        data: DataSet,
        folder: Path,
        output: str | None = None,
        agreement: Kind = "auto",
        progress: Progress = silent,
    ) -> None:
        """Prepare; `output` and `agreement` are the user's, see BenchSettings."""
        self._asking, self._data, self._folder = asking, data, folder
        self._output, self._progress = output, progress
        self._agreement: Kind = agreement
        self.samples = asking.layout.usable(data.samples)
        self.task: Task | None = None
        self._scale: Scale | None = None
        self._chunks = 0
        self._tally: Tally | None = None
        self._figures: dict[str, float] = {}
        self._outputs: list[str] = []

    @property
    def labels(self) -> Array | None:
        """The true classes or values of the samples that are judged."""
        return None if self._data.labels is None else self._data.labels[: self.samples]

    def record(self, session: Session) -> Judged:
        """Write the baseline's answers to disk and judge it; the first thing to call.

        Raises:
            ModelError: it cannot be run on all of the data, or answers with not-a-number.
            DataError: the labels fit none of its outputs, or are not what it answers.
        """
        self._chunks = 0
        for answers in self._asking.answers(session, self._data, self._progress):
            _check_numbers(answers)
            if self._chunks == 0:
                self._find_task(answers)
            if self._tally is not None:
                self._tally.add(answers)
            # Strings are objects in numpy, which are not written without pickle: keep them as characters.
            plain = {
                f"output{place}": value.astype(str) if value.dtype == object else value
                for place, value in enumerate(answers.values())
            }
            np.savez(self._folder / f"answers{self._chunks:06d}.npz", allow_pickle=False, **plain)
            self._chunks += 1
        self._outputs = [spec.name for spec in session.signature.outputs]
        self._figures = {**self._score(self._tally), "agreement": 1.0}
        if self.task is not None and self.labels is not None:
            check_regression(self.task, self.labels, self._figures.get("r2"))
        return self._judged(self._figures, self._tally)

    def compare(self, session: Session) -> Judged:
        """Judge a variant, agreement with the baseline among its figures.

        Raises:
            ModelError: it cannot be run, or its answers have other shapes or are not finite.
        """
        comparison, tally = Comparison(self._agreement), self._new_tally()
        asked = self._asking.answers(session, self._data, self._progress)
        for expected, answers in zip(self._recorded(), asked, strict=True):
            comparison.add(expected, answers)
            if tally is not None:
                tally.add(answers)
        return self._judged({**self._score(tally), "agreement": comparison.value}, tally)

    def _find_task(self, answers: Answers) -> None:
        if self._data.labels is None:
            self.task = unlabelled_task(answers, self._agreement)
        else:
            self.task = find_task(self._data.labels, answers, self._output)
        if self.task is not None and self.task.reading in {Reading.CLASS_SCORES, Reading.TWO_CLASSES}:
            self._scale = scale_of(self.task, answers[self.task.output])
        self._tally = self._new_tally()

    def _new_tally(self) -> Tally | None:
        return None if self.task is None else Tally(self.task, self.labels, self._scale)

    def _recorded(self) -> Iterator[Answers]:
        for chunk in range(self._chunks):
            with np.load(self._folder / f"answers{chunk:06d}.npz", allow_pickle=False) as file:
                yield {name: file[f"output{place}"] for place, name in enumerate(self._outputs)}

    def _score(self, tally: Tally | None) -> dict[str, float]:
        if tally is None or self.labels is None:
            return {}
        return score(tally.task, self.labels, tally.predictions)

    def _judged(self, figures: dict[str, float], tally: Tally | None) -> Judged:
        metric = metric_of(figures)
        plain = Quality(metric, figures[metric], self._figures[metric], self.samples, figures)
        if tally is None or self._tally is None or tally.task.is_regression:
            return Judged(plain, None)
        detailed = self._with_classes(plain, tally, self._tally)
        return Judged(replace(detailed, figures={**figures, **flat_figures(detailed)}), tally.predictions)

    def _with_classes(self, quality: Quality, tally: Tally, baseline: Tally) -> Quality:
        """Add what predicted classes tell."""
        ours, theirs, labels = tally.predictions, baseline.predictions, self.labels
        changes = churn(theirs, ours, labels)
        single = ours.size == self.samples
        if labels is None:
            top_one = single and abs(1 - changes.changed - quality.value) < 1e-9
            return replace(
                quality, churn=changes, interval=self._interval(quality.value) if top_one else None
            )
        quality = replace(
            quality,
            churn=changes,
            ece=tally.ece,
            baseline_ece=baseline.ece,
            ece_of="" if self._scale is None else self._scale.value,
            per_class=per_class(labels, ours, theirs),
        )
        if not single:
            return quality
        return replace(
            quality,
            interval=self._interval(quality.value),
            baseline_interval=self._interval(quality.baseline_value),
            difference=paired_difference(changes.better, changes.worse, self.samples),
            mcnemar=mcnemar(changes.better, changes.worse),
        )

    def _interval(self, share: float) -> Interval:
        return wilson(round(share * self.samples), self.samples)


def _check_numbers(answers: Answers) -> None:
    """Refuse not-a-number, which no variant could be compared with; an infinity may be meant."""
    for name, value in answers.items():
        broken = int(np.isnan(value).sum()) if value.dtype.kind in "fc" else 0
        if broken:
            raise ModelError(
                f"The model answers with not-a-number ({broken} of {value.size} values of its output "
                f"{name!r} on the first samples where it does); give data and a model that work together."
            )


def flat_figures(quality: Quality) -> dict[str, float]:
    """Return what is known beside the plain figures as numbers by name, for the manifest."""
    known: dict[str, float | None] = {"ece": quality.ece, "baseline_ece": quality.baseline_ece}
    for name, interval in (
        (quality.metric, quality.interval),
        (f"baseline_{quality.metric}", quality.baseline_interval),
        ("difference", quality.difference),
    ):
        if interval is not None:
            known[f"{name}_low"], known[f"{name}_high"] = interval
    if quality.churn is not None:
        known["churn"], known["flipped"] = quality.churn.changed, quality.churn.flipped
    if quality.mcnemar is not None:
        known["mcnemar_p"] = quality.mcnemar.p_value
        known["mcnemar_better"] = float(quality.mcnemar.better)
        known["mcnemar_worse"] = float(quality.mcnemar.worse)
    return {name: value for name, value in known.items() if value is not None}
