"""Whether a model is right as often as it claims to be: the expected calibration error.

Predictions are put in 15 bins of equal width by their confidence, the probability of the predicted class;
ECE = sum_b n_b/n |accuracy of bin b - mean confidence of bin b| (Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, eq. 3). Compression often leaves accuracy alone and makes a model too sure or too
unsure.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.labels import Reading, Task

Array = NDArray[Any]

BINS: Final = 15
# Rows of a distribution in fp16 add up to 1 within this.
_SUM_TOLERANCE: Final = 1e-2


class Scale(Enum):
    """What an output's numbers are."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


def scale_of(task: Task, scores: Array) -> Scale:
    """Decide what scores are from the baseline's; variants are then read in the same way.

    Probabilities lie between 0 and 1 and add up to 1 over the classes; everything else is taken for logits
    and goes through softmax (a single score through the logistic function). That is right for
    log-probabilities too: softmax(log p) = p.
    """
    values = scores.astype(np.float64)
    inside = bool(((values >= -1e-6) & (values <= 1 + 1e-6)).all())
    if task.reading is Reading.CLASS_SCORES:
        inside = inside and bool((np.abs(values.sum(axis=task.axis) - 1) < _SUM_TOLERANCE).all())
    return Scale.PROBABILITIES if inside else Scale.LOGITS


def confidences(task: Task, scale: Scale, scores: Array) -> Array:
    """Return the probability of each predicted class: `scores` without its axis of classes."""
    values = scores.astype(np.float64)
    if task.reading is Reading.CLASS_SCORES:
        if scale is Scale.PROBABILITIES:
            return np.asarray(np.clip(values.max(axis=task.axis), 0, 1))
        shifted = values - values.max(axis=task.axis, keepdims=True)
        return np.asarray(1 / np.exp(shifted).sum(axis=task.axis))
    one = values if scale is Scale.PROBABILITIES else 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return np.asarray(np.maximum(one, 1 - one))


@dataclass(slots=True)
class CalibrationError:
    """A running expected calibration error; memory does not grow with the samples."""

    counts: Array = field(default_factory=lambda: np.zeros(BINS))
    confident: Array = field(default_factory=lambda: np.zeros(BINS))
    right: Array = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: Array, correct: Array) -> None:
        """Take in the confidence of predictions and whether they were right, as many of each."""
        sure, truth = confidence.reshape(-1), correct.reshape(-1).astype(np.float64)
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)
        self.confident += np.bincount(bins, weights=sure, minlength=BINS)
        self.right += np.bincount(bins, weights=truth, minlength=BINS)

    @property
    def value(self) -> float:
        """The error so far: 0 is perfect, and without samples."""
        total = float(self.counts.sum())
        return float(np.abs(self.right - self.confident).sum() / total) if total else 0.0
