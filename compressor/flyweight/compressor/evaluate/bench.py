"""The bench on which every variant is measured against the same baseline, on the same data."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.agreement import Comparison, Kind
from flyweight.compressor.evaluate.asking import Answers, Asking, plan_asking
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.labels import Task, find_task, require_output
from flyweight.compressor.evaluate.latency import LatencyPoint, time_alone, time_in_turns
from flyweight.compressor.evaluate.macs import count_macs
from flyweight.compressor.evaluate.memory import MemoryMeter
from flyweight.compressor.evaluate.quality import Quality, metric_of, score
from flyweight.compressor.onnx_model import count_parameters, file_bytes, load_graph
from flyweight.compressor.sessions import Session, SessionSettings

Array = NDArray[Any]

BATCHES: Final = (1, 8)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How variants are measured.

    Attributes:
        session: how sessions are set up; a variant is served in the same way.
        seconds_per_point: of timing for each batch size of each variant, baseline's turns included.
        output: the output that labels are compared with; None takes the first that fits.
        agreement: what the same answer means; see evaluate/agreement.py.
    """

    session: SessionSettings = field(default_factory=SessionSettings)
    seconds_per_point: float = 1.0
    output: str | None = None
    agreement: Kind = "auto"


class Bench:
    """Holds the baseline's session and its answers; used from one thread.

    The baseline's answers lie on disk, in `folder`, so that memory does not grow with the data.
    """

    def __init__(
        self,
        baseline: Path,
        data: DataSet,
        folder: Path,
        settings: BenchSettings,
        progress: Progress = silent,
    ) -> None:
        """Load the baseline and check that the data fit it.

        Raises:
            ModelError: it cannot be loaded or run.
            DataError: the data do not fit it, or it has no output of the name asked for.
        """
        self.settings = settings
        self.data = data
        self.session = Session(baseline, settings.session)
        require_output(settings.output, [spec.name for spec in self.session.signature.outputs])
        self.asking: Asking = plan_asking(self.session, data)
        self._path = baseline
        self._folder = folder
        self._progress = progress
        self.samples = self.asking.layout.usable(data.samples)
        self._task: Task | None = None
        self._chunks = 0
        self._figures: dict[str, float] = {}
        self._pace: dict[int, LatencyPoint] = {}
        self._meter: MemoryMeter | None = None

    def measure_baseline(self) -> Evaluation:
        """Take the baseline's answers and measure it against itself; the first thing to call.

        Raises:
            ModelError: it cannot be run on all of the data.
            DataError: the labels fit none of its outputs.
        """
        self._figures = self._record()
        quality = self._quality({**self._figures, "agreement": 1.0})
        measured = self._evaluate(self._path, self.session, quality)
        self._pace = {point.batch: point for point in measured.latency}
        return measured

    def measure(self, path: Path) -> Evaluation:
        """Measure the variant at `path`.

        Raises:
            ModelError: it cannot be loaded or run, takes or gives other tensors than the baseline, or its
                answers are not finite: it is broken.
        """
        session = Session(path, self.settings.session)
        difference = self.session.signature.difference(session.signature)
        if difference is not None:
            raise ModelError(f"It cannot stand in for the baseline: {difference}.")
        return self._evaluate(path, session, self._quality(self._compare(session)))

    def _evaluate(self, path: Path, session: Session, quality: Quality) -> Evaluation:
        graph = load_graph(path, weights=False)
        batches = self.asking.batches(BATCHES)
        latency = []
        for done, batch in enumerate(batches):
            self._progress("timing", done, len(batches))
            latency.append(self._time(session, batch))
        self._progress("timing", len(batches), len(batches))
        self._meter = self._meter or MemoryMeter(self._folder, self.settings.session)
        return Evaluation(
            file_bytes=file_bytes(path),
            parameters=count_parameters(graph),
            macs=count_macs(graph, self.asking.layout),
            quality=quality,
            latency=tuple(latency),
            pss_bytes=self._meter.growth_bytes(path, self.asking.layout.sample_feed(self.data, batches[0])),
        )

    def _time(self, session: Session, batch: int) -> LatencyPoint:
        feed = self.asking.layout.sample_feed(self.data, batch)
        seconds = self.settings.seconds_per_point
        if session is self.session:
            return time_alone(batch, session.runner(feed), seconds / 2)
        point = time_in_turns(batch, self.session.runner(feed), session.runner(feed), seconds)
        return point.at_pace_of(self._pace[batch])

    def _record(self) -> dict[str, float]:
        """Write the baseline's answers to disk and return its figures against the labels."""
        predictions: list[Array] = []
        for answers in self.asking.answers(self.session, self.data, self._progress):
            if self.data.labels is not None:
                self._task = self._task or find_task(self.data.labels, answers, self.settings.output)
                predictions.append(self._task.predict(answers))
            # Strings are objects in numpy, which are not written without pickle: keep them as characters.
            plain = {
                f"output{place}": value.astype(str) if value.dtype == object else value
                for place, value in enumerate(answers.values())
            }
            np.savez(self._folder / f"answers{self._chunks:06d}.npz", allow_pickle=False, **plain)
            self._chunks += 1
        return self._score(predictions)

    def _recorded(self) -> Iterator[Answers]:
        names = [spec.name for spec in self.session.signature.outputs]
        for chunk in range(self._chunks):
            with np.load(self._folder / f"answers{chunk:06d}.npz", allow_pickle=False) as file:
                yield {name: file[f"output{place}"] for place, name in enumerate(names)}

    def _compare(self, session: Session) -> dict[str, float]:
        """Return the figures of a variant, agreement with the baseline among them."""
        comparison, predictions = Comparison(self.settings.agreement), list[Array]()
        asked = self.asking.answers(session, self.data, self._progress)
        for expected, answers in zip(self._recorded(), asked, strict=True):
            comparison.add(expected, answers)
            if self._task is not None:
                predictions.append(self._task.predict(answers))
        return {**self._score(predictions), "agreement": comparison.value}

    def _score(self, predictions: list[Array]) -> dict[str, float]:
        if self._task is None or self.data.labels is None:
            return {}
        return score(self._task, self.data.labels[: self.samples], np.concatenate(predictions))

    def _quality(self, figures: dict[str, float]) -> Quality:
        metric = metric_of(figures)
        baseline = {"agreement": 1.0, **self._figures}[metric]
        return Quality(metric, figures[metric], baseline, self.samples, figures)
