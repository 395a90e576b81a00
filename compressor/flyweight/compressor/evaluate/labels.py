"""Reading predictions out of a model's outputs, so that they can be compared with labels."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import DataError
from flyweight.compressor.signature import some_names

Array = NDArray[Any]


class Reading(Enum):
    """How an output says what the model predicts."""

    CLASS_SCORES = "the place of the largest score along an axis"
    CLASS_NUMBERS = "the class itself"
    TWO_CLASSES = "one score: above a threshold is class 1"
    VALUES = "the value itself"


@dataclass(frozen=True, slots=True)
class Task:
    """What the labels of a data set mean for a model.

    Attributes:
        output: the name of the output that predicts.
        reading: how it does.
        axis: of the scores; unused otherwise.
        threshold: between two classes; unused otherwise.
    """

    output: str
    reading: Reading
    axis: int = -1
    threshold: float = 0.0

    @property
    def is_regression(self) -> bool:
        """Whether predictions are numbers rather than classes."""
        return self.reading is Reading.VALUES

    def predict(self, answers: Mapping[str, Array]) -> Array:
        """Return predictions, first axis = samples, from one run's answers."""
        value = answers[self.output]
        match self.reading:
            case Reading.CLASS_SCORES:
                return np.asarray(value.argmax(axis=self.axis))
            case Reading.CLASS_NUMBERS:
                return value.reshape(len(value), -1)
            case Reading.TWO_CLASSES:
                return (value.reshape(len(value), -1) > self.threshold).astype(np.int64)
            case Reading.VALUES:
                return value.reshape(len(value), -1)


def find_task(labels: Array, answers: Mapping[str, Array], output: str | None = None) -> Task:
    """Find the output that predicts the labels: the first that fits, or the one named.

    Integer labels mean classes, unless there is only one number to compare them with and they are not just 0
    and 1. A single score between 0 and 1 is a probability (threshold 0.5), any other a logit (threshold 0).

    Args:
        labels: of all samples.
        answers: of at least one sample, with the first axis counting samples.
        output: the output's name, where the user said it.

    Raises:
        DataError: no output fits, or a label is no class of the one that does.
    """
    require_output(output, answers)
    candidates = {output: answers[output]} if output is not None else dict(answers)
    shape = labels.shape[1:] if labels.shape[1:] != (1,) else ()
    find = _find_classes if labels.dtype.kind in "iu" else _find_values
    for name, value in candidates.items():
        task = find(labels, shape, name, value)
        if task is not None:
            return task
    listed = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in candidates.items())
    raise DataError(
        f"The labels are {labels.dtype}{list(labels.shape[1:])} a sample, which fits no output ({listed}); "
        "give integers for classes, or floats of an output's shape."
    )


def check_regression(task: Task, labels: Array, r2: float | None) -> None:
    """Refuse labels that a model answers worse than their mean would: it was not trained to give these.

    A loss of quality could not be told from noise against such labels.

    Args:
        task: what they were taken for.
        labels: first axis = samples.
        r2: of the model on them; None where they are not values.

    Raises:
        DataError: it is below zero; the sentence says what the labels look like, and what to give instead.
    """
    if r2 is None or r2 >= 0:
        return
    raise DataError(
        f"The labels ({labels.dtype}{list(labels.shape[1:])} a sample) were taken for values of output "
        f"{task.output!r}, and the model answers them worse than their mean would (R2 {r2:.3g}): "
        f"{_advice(labels)}, or leave the labels out to judge by agreement with the model."
    )


def _advice(labels: Array) -> str:
    rows = labels.reshape(len(labels), -1)
    if bool(np.isin(rows, (0, 1)).all()):
        return "they are all 0 and 1, so if they are classes, save them as integers"
    if rows.shape[1] > 1 and bool((rows >= 0).all()) and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return "each row adds up to 1, so if these are probabilities of classes, save label.argmax(axis=1)"
    if bool((rows == np.round(rows)).all()):
        return "they are whole numbers, so if they are classes, name the output of their scores with --output"
    return "give them in the units in which the model answers"


def require_output(output: str | None, outputs: Collection[str]) -> None:
    """Check that the output a user named is one of the model's.

    Raises:
        DataError: it is not.
    """
    if output is not None and output not in outputs:
        raise DataError(f"The model has no output {output!r}; its outputs are {some_names(outputs)}.")


def _find_classes(labels: Array, shape: tuple[int, ...], name: str, value: Array) -> Task | None:
    if value.dtype.kind in "iu":
        return Task(name, Reading.CLASS_NUMBERS) if value.shape[1:] in {shape, (*shape, 1)} else None
    if value.dtype.kind != "f":
        return None
    for axis in (-1, 1):
        if value.ndim >= 2 and value.shape[axis] >= 2 and _without(value.shape, axis) == shape:
            _check_classes(labels, value.shape[axis], name)
            return Task(name, Reading.CLASS_SCORES, axis=axis)
    if value.shape[1:] in {shape, (*shape, 1)}:
        if set(np.unique(labels)) <= {0, 1}:
            probability = bool(((value >= 0) & (value <= 1)).all())
            return Task(name, Reading.TWO_CLASSES, threshold=0.5 if probability else 0.0)
        return Task(name, Reading.VALUES)
    return None


def _find_values(labels: Array, shape: tuple[int, ...], name: str, value: Array) -> Task | None:
    fits = value.dtype.kind == "f" and np.prod(value.shape[1:]) == np.prod(labels.shape[1:])
    same = value.shape[1:] in {shape, (*shape, 1), labels.shape[1:]}
    return Task(name, Reading.VALUES) if fits and same else None


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return a shape without the samples' axis and without `axis`."""
    lengths = list(shape)
    del lengths[axis]
    return tuple(lengths[1:])


def _check_classes(labels: Array, classes: int, name: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise DataError(
            f"Label {wrong} is no class of output {name!r}, which has {classes} (0 to {classes - 1}); "
            "number the classes as the model does."
        )
