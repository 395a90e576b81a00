"""Which weights stay: pure functions from scores to masks, for torch modules and ONNX graphs alike.

A score is any number that says what a weight is worth; with the weights' magnitudes as scores these are the
masks of Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", section 3.
A mask is true where the weight stays.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import RecipeError

Scores = NDArray[Any]
Mask = NDArray[np.bool_]

_PATTERN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """N of every M consecutive weights stay (Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks").

    Attributes:
        kept: N, at least 1.
        of: M, above N.
    """

    kept: int
    of: int

    @property
    def ratio(self) -> float:
        """The fraction of the weights that goes."""
        return 1.0 - self.kept / self.of


def parse_pattern(text: str) -> Pattern:
    """Read a pattern as the field writes it: "2:4".

    Raises:
        RecipeError: it is no pattern, or would keep none or all.
    """
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        raise RecipeError(f"A sparsity pattern is written like 2:4, and {text!r} is not.")
    kept, of = int(found[1]), int(found[2])
    if not 1 <= kept < of:
        raise RecipeError(
            f"A sparsity pattern N:M keeps at least one weight and fewer than all of M; {text!r} does not."
        )
    return Pattern(kept, of)


def keep_above(scores: Scores, threshold: float) -> Mask:
    """Return the mask of weights whose score is above the threshold; same shape as `scores`."""
    return np.asarray(scores > threshold)


def keep_largest(scores: Scores, ratio: float) -> Mask:
    """Return the mask without the round(ratio * n) smallest scores, same shape; of equals the first go."""
    return keep_largest_together([scores], ratio)[0]


def keep_largest_together(scores: Sequence[Scores], ratio: float) -> list[Mask]:
    """Return one mask for each layer, with one threshold across all of them.

    Exactly round(ratio * n) of the n weights go, those of the smallest scores; of equals the first.
    """
    flat = np.concatenate([layer.ravel() for layer in scores])
    gone = round(ratio * flat.size)
    kept = np.ones(flat.size, dtype=np.bool_)
    kept[_smallest(flat, gone)] = False
    bounds = np.cumsum([layer.size for layer in scores])[:-1]
    return [mask.reshape(layer.shape) for mask, layer in zip(np.split(kept, bounds), scores, strict=True)]


def lamp_scores(scores: Scores) -> Scores:
    """Return scores of single weights that can be compared across layers, of the same shape.

    score(u) = s_u^2 / (sum of s_v^2 over all v >= u), with the layer's weights in rising order of |s|: Lee et
    al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", equation 1. They are between 0 and
    1, keep the layer's own order, and do not change with its scale; a layer's largest has 1, so that
    something stays in every layer until all else is gone. Of equals the first has the least. Negative
    scores, those of what is gone already, stay as they are.
    """
    squares = np.square(np.maximum(scores.ravel(), 0.0), dtype=np.float64)
    order = np.argsort(squares, kind="stable")
    rising = squares[order]
    left = np.cumsum(rising[::-1])[::-1]
    found = np.empty_like(squares)
    found[order] = np.divide(rising, left, out=np.zeros_like(left), where=left > 0)
    return np.where(scores < 0, scores, found.reshape(scores.shape))


def keep_n_of_m(scores: Scores, pattern: Pattern, axis: int) -> Mask:
    """Return the mask that keeps the N largest of every M scores along `axis`, of equals the last.

    `axis` is that of the input channels, along which a product adds up: sparse units skip zeros there. What
    is left over at its end, fewer than M, stays whole.
    """
    moved = np.moveaxis(scores, axis, -1)
    length = moved.shape[-1] // pattern.of * pattern.of
    groups = moved[..., :length].reshape(*moved.shape[:-1], -1, pattern.of)
    order = np.argsort(groups, axis=-1, kind="stable")
    kept = np.ones(groups.shape, dtype=np.bool_)
    np.put_along_axis(kept, order[..., : pattern.of - pattern.kept], values=False, axis=-1)
    mask = np.ones(moved.shape, dtype=np.bool_)
    mask[..., :length] = kept.reshape(*moved.shape[:-1], length)
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


def _smallest(flat: Scores, count: int) -> NDArray[np.intp]:
    """Return the places of the `count` smallest scores; of equals the first ones."""
    if count <= 0:
        return np.empty(0, dtype=np.intp)
    # Partitioning is linear in the number of weights, where sorting 100 million of them takes ten seconds.
    threshold = np.partition(flat, count - 1)[count - 1]
    below = np.flatnonzero(flat < threshold)
    equal = np.flatnonzero(flat == threshold)
    return np.concatenate([below, equal[: count - below.size]])
