"""Churn: what the users of a replaced model notice, even where its accuracy stays the same.

Two models of the same accuracy can answer many samples differently. The share of changed predictions is
called churn (Milani Fard et al., "Launch and Iterate: Reducing Prediction Churn", NIPS 2016, section 2).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Churn:
    """What changed between the predictions of two models, as shares of all predictions.

    Attributes:
        changed: that are another class; one minus the agreement of predictions.
        flipped: that went from right to wrong or from wrong to right; None without labels.
        better: samples that only the variant answers right; 0 without labels.
        worse: samples that only the baseline answers right; 0 without labels.
    """

    changed: float
    flipped: float | None = None
    better: int = 0
    worse: int = 0


def churn(baseline: Array, variant: Array, labels: Array | None = None) -> Churn:
    """Compare predicted classes, one array element for each prediction.

    Args:
        baseline: classes that the baseline predicts, any shape.
        variant: classes that the variant predicts, the same shape.
        labels: the true classes, as many; None when unknown.
    """
    ours, theirs = variant.reshape(-1), baseline.reshape(-1)
    changed = float(np.mean(ours != theirs))
    if labels is None:
        return Churn(changed)
    truth = labels.reshape(-1)
    right, was_right = ours == truth, theirs == truth
    better, worse = int(np.sum(right & ~was_right)), int(np.sum(was_right & ~right))
    return Churn(changed, (better + worse) / len(truth), better, worse)
