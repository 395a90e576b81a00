"""Recognising inputs that hold images, so that they can be disturbed as cameras and attackers do."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Grey, grey with alpha, colour, colour with alpha.
_MOST_CHANNELS: Final = 4
# On fewer pixels a patch or a blur is the whole picture.
_SMALLEST_SIDE: Final = 8


@dataclass(frozen=True, slots=True)
class ImageAxes:
    """Where an array of images, first axis = samples, has its rows and columns."""

    rows: int
    columns: int

    def side(self, array: Array) -> int:
        """Return the shorter side in pixels."""
        return int(min(array.shape[self.rows], array.shape[self.columns]))


def image_axes(array: Array) -> ImageAxes | None:
    """Return the axes of an array of images; None when it holds something else.

    Images are floats of rank 4 with one axis of 1 to 4 channels, second (NCHW) or last (NHWC), and two of at
    least 8 pixels.
    """
    if array.ndim != 4 or not np.issubdtype(array.dtype, np.floating):
        return None
    for channels, axes in ((1, ImageAxes(2, 3)), (3, ImageAxes(1, 2))):
        if array.shape[channels] <= _MOST_CHANNELS and axes.side(array) >= _SMALLEST_SIDE:
            return axes
    return None
