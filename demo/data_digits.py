"""1,797 handwritten digits of 8x8 pixels, which ship inside scikit-learn: no download."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from demo.task import IMAGE
from flyweight.compressor.data import DataSet

DESCRIPTION: Final = "1,797 handwritten digits (UCI, from scikit-learn), 8x8 scaled to 32x32"
SIDE: Final = 32
_SMALL_SIDE: Final = 8
# The scans count 16 ink levels per pixel.
_LARGEST_PIXEL: Final = 16.0
# Enough to learn from, and the more to judge with: one of 1,078 digits is 0.09 points of accuracy.
_TRAINING_SHARE: Final = 0.4


def load(seed: int, rows: int | None = None) -> tuple[DataSet, DataSet]:
    """Return disjoint training and evaluation sets; `rows` takes only so many samples, for a quick run."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images, labels = (
        np.asarray(pixels)[:rows].reshape(-1, _SMALL_SIDE, _SMALL_SIDE),
        np.asarray(labels)[:rows],
    )
    data = DataSet({IMAGE: enlarged(images / _LARGEST_PIXEL)}, labels.astype(np.int64))
    return data.split(_TRAINING_SHARE, seed)


def enlarged(images: NDArray[Any], side: int = SIDE) -> NDArray[np.float32]:
    """Scale square images bilinearly, their outer edges aligned: (n, a, a) to float32 (n, 1, side, side)."""
    weights = _interpolation(images.shape[-1], side)
    scaled = weights @ images @ weights.T
    return np.ascontiguousarray(scaled[:, None], dtype=np.float32)


def _interpolation(before: int, after: int) -> NDArray[np.float64]:
    """Return the (after, before) matrix of linear interpolation along one axis; each row adds up to 1."""
    centres = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    lower = np.minimum(centres.astype(int), before - 2)
    share = centres - lower
    matrix = np.zeros((after, before))
    matrix[np.arange(after), lower] = 1 - share
    matrix[np.arange(after), lower + 1] = share
    return matrix
