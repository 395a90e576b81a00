"""How far a network's answers moved from what they were, as one number that sensitivity is measured in."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.agreement import is_embedding

Array = NDArray[Any]

_SMALLEST_PROBABILITY: Final = 1e-12


def divergence(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Return the sum over all floating outputs of how far they moved, at least 0; infinite if one broke.

    Scores of classes, shape (samples, classes), differ by KL(softmax(expected) || softmax(found)) in nats,
    the mean over the samples; probabilities are taken as they are. Other numbers differ by sum (f - e)^2 /
    sum e^2.
    """
    total = 0.0
    for before, after in zip(expected, found, strict=True):
        if not np.issubdtype(before.dtype, np.floating):
            continue
        if not np.isfinite(after[np.isfinite(before)]).all():
            return float("inf")
        scores = before.ndim == 2 and before.shape[1] >= 2 and not is_embedding(before)
        total += _kullback_leibler(before, after) if scores else relative_error(before, after)
    return total


def _kullback_leibler(before: Array, after: Array) -> float:
    reference, answer = _log_probabilities(before), _log_probabilities(after)
    return float((np.exp(reference) * (reference - answer)).sum(axis=1).mean())


def _log_probabilities(rows: Array) -> Array:
    """Return the logarithms of the distributions that rows are, or that their softmax is."""
    values = rows.astype(np.float64)
    if (values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 1e-3).all():
        return np.log(np.maximum(values, _SMALLEST_PROBABILITY))
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def relative_error(before: Array, after: Array) -> float:
    """Return sum (after - before)^2 / sum before^2, over what was finite before."""
    finite = np.isfinite(before)
    reference, answer = before[finite].astype(np.float64), after[finite].astype(np.float64)
    energy, error = float(np.square(reference).sum()), float(np.square(answer - reference).sum())
    return error / energy if energy > 0 else float(error > 0)
