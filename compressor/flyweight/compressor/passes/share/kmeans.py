"""k-means in one dimension: a few centroids that stand for many weights.

Han, Mao and Dally 2016, "Deep Compression", section 3.1, equation 2: clusters C_1 ... C_k minimise the sum of
(w - c_i)**2 over all w in C_i. In one dimension clusters are intervals, so that with weights sorted and their
sums accumulated a round of Lloyd's algorithm looks at k bounds and not at every weight.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Lloyd's algorithm gains little after some tens of rounds; it stops by itself when nothing moves any more.
_MOST_ROUNDS: Final = 200
_STILL: Final = 1e-7


def find_centroids(values: Array, count: int) -> Array:
    """Return at most `count` centroids in ascending order, float64 of shape (centroids,).

    They start evenly spaced between the smallest and the largest value: large weights are few and matter
    most, and a start by density would leave them without a centroid (section 3.2, "linear initialization").
    Where a few far values leave most of that space empty, a cluster without values is moved to split the one
    of the largest error.

    Args:
        values: finite, of any shape, at least one.
        count: at least 1.
    """
    distinct, numbers = np.unique(values.astype(np.float64), return_counts=True)
    if len(distinct) <= count:
        return distinct
    # Sizes, sums and sums of squares of the values below each, so that an interval's is a difference.
    below = [np.concatenate([[0.0], np.cumsum(numbers * distinct**power)]) for power in range(3)]
    centroids = np.linspace(distinct[0], distinct[-1], count)
    for _ in range(_MOST_ROUNDS):
        cuts = np.concatenate([[0], np.searchsorted(distinct, _bounds(centroids)), [len(distinct)]])
        sizes, sums, squares = (np.diff(sums[cuts]) for sums in below)
        means = np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids)
        moved = _split(means, sizes, np.maximum(squares - sizes * means**2, 0.0))
        still = float(np.abs(moved - centroids).max()) <= _STILL * float(distinct[-1] - distinct[0])
        centroids = moved
        if still:
            break
    used: Array = centroids[np.unique(nearest(values, centroids))]
    return used


def _split(means: Array, sizes: Array, errors: Array) -> Array:
    """Return the centroids with each empty one moved into one of the clusters of the largest errors.

    The two halves of a split cluster start a standard deviation apart from each other.
    """
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return means
    moved = means.copy()
    worst = np.argsort(-errors, kind="stable")[: len(empty)]
    worst = worst[errors[worst] > 0]
    spread = np.sqrt(errors[worst] / sizes[worst]) / 2
    moved[worst] = means[worst] - spread
    moved[empty[: len(worst)]] = means[worst] + spread
    return np.sort(moved)


def nearest(values: Array, centroids: Array) -> Array:
    """Return the place of the nearest centroid of each value, of the values' shape.

    Args:
        values: of any shape.
        centroids: in ascending order, shape (centroids,).
    """
    places: Array = np.searchsorted(_bounds(centroids), values)
    return places


def _bounds(centroids: Array) -> Array:
    """Return the middles between neighbours: where the nearest centroid changes."""
    middles: Array = (centroids[1:] + centroids[:-1]) / 2
    return middles


def share(arrays: Sequence[Array], bits: int) -> tuple[list[Array], Array]:
    """Return, for arrays that share one codebook, each one's places in it, and the codebook.

    Zeros are what pruning left of weights: where there are any, one entry of the codebook is pinned at zero,
    nothing else moves there, and nothing leaves it.

    Args:
        arrays: finite floats of any shapes.
        bits: the codebook has at most 2**bits entries.

    Returns:
        Places, each of its array's shape, and the codebook in ascending order.
    """
    flat = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    weights = flat[flat != 0]
    pinned = len(weights) < len(flat)
    if not len(weights):
        return [np.zeros(array.shape, dtype=np.intp) for array in arrays], np.zeros(1)
    centroids = find_centroids(weights, max(1, 2**bits - 1) if pinned else 2**bits)
    # A centroid that came to lie at zero would make zeros of weights that are none; nothing is lost by it.
    book = np.unique(np.concatenate([[0.0], centroids])) if pinned else centroids
    if not pinned:
        return [nearest(array, book) for array in arrays], book
    own = np.searchsorted(book, centroids)
    zero = int(np.searchsorted(book, 0.0))
    return [np.where(array == 0, zero, own[nearest(array, centroids)]) for array in arrays], book
