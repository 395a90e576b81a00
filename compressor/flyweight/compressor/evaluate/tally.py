"""What a model answered on a data set, gathered run by run: predictions, and how sure it was of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.agreement import Kind, TopOne, agreement_for
from flyweight.compressor.evaluate.calibration_error import CalibrationError, Scale, confidences
from flyweight.compressor.evaluate.labels import Reading, Task

Array = NDArray[Any]


@dataclass(slots=True)
class Tally:
    """Answers of one model, in the order of the samples.

    Attributes:
        task: how predictions are read out of answers.
        labels: of all samples; None when unknown.
        scale: what the scores are; None where predictions have no scores.
    """

    task: Task
    labels: Array | None
    scale: Scale | None
    error: CalibrationError = field(default_factory=CalibrationError)
    _parts: list[Array] = field(default_factory=list)
    _done: int = 0

    def add(self, answers: Mapping[str, Array]) -> None:
        """Take in the answers of one run."""
        predicted = self.task.predict(answers)
        if not self.task.is_regression:
            # Half the memory: there are fewer classes than 2^31, and there may be a prediction for each
            # pixel.
            predicted = predicted.astype(np.int32)
        rows = slice(self._done, self._done + len(predicted))
        self._done += len(predicted)
        self._parts.append(predicted)
        if self.labels is not None and self.scale is not None:
            sure = confidences(self.task, self.scale, answers[self.task.output])
            self.error.add(sure, predicted.reshape(-1) == self.labels[rows].reshape(-1))

    @property
    def predictions(self) -> Array:
        """All predictions, first axis = samples; integers unless the task is a regression."""
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    @property
    def ece(self) -> float | None:
        """The expected calibration error; None without labels or scores."""
        return None if self.labels is None or self.scale is None else self.error.value


def unlabelled_task(answers: Mapping[str, Array], kind: Kind) -> Task | None:
    """Return how to read classes out of answers when there are no labels; None where none are predicted.

    The first output with one row of scores a sample predicts, as agreement.py decides.
    """
    for name, value in answers.items():
        if isinstance(agreement_for(value, kind), TopOne):
            return Task(name, Reading.CLASS_SCORES)
    return None
