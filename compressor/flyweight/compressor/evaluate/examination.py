"""A closer look at a variant that is to be published: disturbed inputs, patches, a long run."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.context import Progress
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.agreement import Kind
from flyweight.compressor.evaluate.asking import Answers, Asking
from flyweight.compressor.evaluate.corruption import corruptions_for
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.labels import Reading, Task
from flyweight.compressor.evaluate.memory_probe import private_bytes
from flyweight.compressor.evaluate.robustness import FEWEST_SAMPLES, MOST_SAMPLES, RobustnessMeter
from flyweight.compressor.evaluate.settings import (
    ROBUSTNESS_SHARE,
    STABILITY_SHARE,
    TRIGGER_SHARE,
    EvaluationSettings,
)
from flyweight.compressor.evaluate.stability import Stability, run_for_long
from flyweight.compressor.safety.patches import all_patches
from flyweight.compressor.safety.triggers import TriggerMeter
from flyweight.compressor.sessions import Session, SessionSettings

Array = NDArray[Any]

# Beyond these a long run shows nothing new.
_LONGEST_RUN_SECONDS: Final = 60.0


class Examiner:
    """Examines variants of one baseline, whose figures it keeps between them; used from one thread."""

    def __init__(
        self,
        baseline: Session,
        asking: Asking,
        data: DataSet,
        reading: tuple[Task | None, Kind],
        cost: tuple[float, float],
        progress: Progress,
    ) -> None:
        """Choose the samples.

        Args:
            baseline: its session.
            asking: how data are put to the model.
            data: the evaluation data.
            reading: how classes are read out of answers, and what the same answer means.
            cost: seconds that baseline and variant take for one sample, and seconds for one variant in all.
            progress: told of the steps.
        """
        self._asking, self._data, self._progress = asking, data, progress
        task, agreement = reading
        one_sample, seconds = cost
        self._task = task
        runs = 1 + len(corruptions_for(data.inputs))
        self._robustness = RobustnessMeter(
            self._some(ROBUSTNESS_SHARE * seconds / max(one_sample * runs, 1e-9)),
            lambda disturbed: self._answers(baseline, disturbed),
            task,
            agreement,
        )
        runs = 1 + len(all_patches())
        self._triggers: TriggerMeter | None = None
        if task is not None and task.reading in {Reading.CLASS_SCORES, Reading.TWO_CLASSES}:
            some = self._some(TRIGGER_SHARE * seconds / max(one_sample * runs, 1e-9))
            clean = self._answers(baseline, some.first(asking.layout.rows or 1))[task.output]
            classes = clean.shape[task.axis] if task.reading is Reading.CLASS_SCORES else 2
            if task.predict({task.output: clean}).size == len(clean):
                self._triggers = TriggerMeter(some, lambda patched: self._classes(baseline, patched), classes)

    def examine(
        self, path: Path, session: SessionSettings, measured: Evaluation, settings: EvaluationSettings
    ) -> Evaluation:
        """Return the figures with those of the examination.

        Raises:
            ModelError: the variant fails on disturbed or repeated input.
        """
        variant, seconds = Session(path, session), settings.examination_seconds
        robustness, trigger, stability = None, None, None
        if settings.triggers and self._triggers is not None:
            self._progress("trying patches", 0, 3)
            deadline = time.monotonic() + TRIGGER_SHARE * seconds
            trigger = self._triggers.of(lambda data: self._classes(variant, data), deadline)
        if settings.robustness:
            self._progress("disturbing inputs", 1, 3)
            deadline = time.monotonic() + ROBUSTNESS_SHARE * seconds
            robustness = self._robustness.of(lambda data: self._answers(variant, data), deadline)
        if settings.stability:
            self._progress("running for long", 2, 3)
            doubled = Session(path, replace(session, threads=2 * session.threads))
            stability = self._run(variant, doubled, min(STABILITY_SHARE * seconds, _LONGEST_RUN_SECONDS))
        self._progress("running for long", 3, 3)
        return replace(measured, robustness=robustness, trigger=trigger, stability=stability)

    def _run(self, variant: Session, doubled: Session, seconds: float) -> Stability:
        feed = self._asking.layout.sample_feed(self._data, self._asking.batches((1,))[0])
        return run_for_long(lambda: variant.run(feed), seconds, lambda: doubled.run(feed), private_bytes)

    def _some(self, affordable: float) -> DataSet:
        """Return samples spread evenly over the data, so that sorted classes are all there."""
        usable, rows = self._asking.layout.usable(self._data.samples), self._asking.layout.rows or 1
        count = min(usable, MOST_SAMPLES, max(FEWEST_SAMPLES, int(affordable)))
        count = max(rows, count - count % rows)
        return self._data.take(np.linspace(0, usable - 1, count).round().astype(np.int64))

    def _answers(self, session: Session, data: DataSet) -> Answers:
        parts = list(self._asking.answers(session, data))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _classes(self, session: Session, data: DataSet) -> Array:
        assert self._task is not None, "patches are tried on models that predict classes"
        return self._task.predict(self._answers(session, data)).reshape(-1)
