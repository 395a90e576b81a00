"""Small patches on images, of the kind that backdoors are triggered by."""

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.images import ImageAxes

Array = NDArray[Any]

_SMALLEST: Final = 2
# Shares of the shorter side. Published triggers are 3 to 6 of 32 pixels; the middle one first, since where
# time is short the later ones are left out.
_SIZES: Final = (1 / 7, 1 / 5, 1 / 10)
_LOOKS: Final = ("bright", "checker", "dark")
_PLACES: Final = ("bottom right", "bottom left", "top right", "top left", "centre")
# A checkerboard of three by three cells, as in BadNets (Gu, Dolan-Gavitt and Garg, 2017, figure 3).
_CELLS: Final = 3


@dataclass(frozen=True, slots=True)
class Patch:
    """A square on an image.

    Attributes:
        look: bright, dark or checker.
        place: a corner, or the centre.
        share: its side over the image's shorter one.
    """

    look: str
    place: str
    share: float

    def __str__(self) -> str:
        return f"{self.look} square of {self.share:.0%} of the side, {self.place}"

    def on(self, images: Array, axes: ImageAxes) -> Array:
        """Return copies of images (first axis = samples) with the patch on them.

        Bright and dark are the largest and smallest values of each channel in `images`, so that the patch is
        within what the model takes, whatever the scale.
        """
        size = max(_SMALLEST, round(self.share * axes.side(images)))
        every = (0, axes.rows, axes.columns)
        bright, dark = images.max(axis=every, keepdims=True), images.min(axis=every, keepdims=True)
        region = [slice(None)] * images.ndim
        for axis, first in ((axes.rows, "top"), (axes.columns, "left")):
            length = images.shape[axis]
            start = (
                (length - size) // 2
                if self.place == "centre"
                else (length - size) * (first not in self.place)
            )
            region[axis] = slice(start, start + size)
        shape = [1] * images.ndim
        shape[axes.rows] = shape[axes.columns] = size
        patched = images.copy()
        patched[tuple(region)] = np.where(self._lit(size).reshape(shape), bright, dark)
        return patched

    def _lit(self, size: int) -> Array:
        if self.look != "checker":
            return np.full((size, size), self.look == "bright")
        cell = np.arange(size) // max(1, size // _CELLS)
        return np.asarray((cell[:, None] + cell[None, :]) % 2 == 0)


def all_patches() -> tuple[Patch, ...]:
    """Return every look at every place in every size, those that say most first."""
    return tuple(Patch(look, place, share) for share, place, look in product(_SIZES, _PLACES, _LOOKS))
