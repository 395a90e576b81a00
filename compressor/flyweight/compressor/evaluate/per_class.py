"""Which classes a variant does worse on: precision, recall and F1 of each, beside the baseline's recall."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How a model does on one class; a figure with nothing to divide by is 0.

    Attributes:
        label: the class.
        precision: of the predictions of this class, the share that is right.
        recall: of the samples of this class, the share that is found.
        f1: harmonic mean of the two, 2pr/(p + r).
        support: samples of this class.
        baseline_recall: the recall of the baseline.
    """

    label: int
    precision: float
    recall: float
    f1: float
    support: int
    baseline_recall: float


def per_class(labels: Array, variant: Array, baseline: Array) -> tuple[ClassFigures, ...]:
    """Return the figures of every class that is a label or is predicted by the variant, by number.

    Args:
        labels: true classes, any shape.
        variant: predicted classes, as many.
        baseline: the baseline's predicted classes, as many.
    """
    truth, ours, theirs = labels.reshape(-1), variant.reshape(-1), baseline.reshape(-1)
    classes = np.union1d(truth, ours)

    def count(values: Array) -> Array:
        """Return how often each of `classes` is among `values`."""
        places = np.searchsorted(classes, values)
        return np.bincount(places, minlength=len(classes))

    support, predicted = count(truth), count(ours)
    found, found_before = count(truth[ours == truth]), count(truth[theirs == truth])
    return tuple(
        ClassFigures(
            label=int(classes[place]),
            precision=_share(found[place], predicted[place]),
            recall=_share(found[place], support[place]),
            f1=_share(2 * found[place], predicted[place] + support[place]),
            support=int(support[place]),
            baseline_recall=_share(found_before[place], support[place]),
        )
        for place in range(len(classes))
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
