"""Disturbing inputs as the world does: noise, blur, contrast and shift, each at three severities.

The severities of noise, blur and contrast are levels 1, 3 and 5 of CIFAR-10-C (D. Hendrycks and T.
Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019), made
independent of scale and size: noise is relative to the spread of the data (CIFAR-10's is a quarter of its
range), blur to the 32 pixels of its images. Shifts are by 1/32, 2/32 and 4/32 of the side, the edge repeated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.images import ImageAxes, image_axes

Array = NDArray[Any]
Inputs = Mapping[str, Array]

SEVERITIES: Final = (1, 2, 3)

# 0.04, 0.08 and 0.10 of a range of 1, over the 0.25 that CIFAR-10's pixels spread by.
_NOISE: Final = (0.16, 0.32, 0.40)
_BLUR: Final = (0.4 / 32, 0.7 / 32, 1 / 32)
_CONTRAST: Final = (0.75, 0.4, 0.15)
_SHIFT: Final = (1 / 32, 2 / 32, 4 / 32)


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to disturb inputs.

    Attributes:
        name: noise, blur, contrast or shift.
        severity: 1, 2 or 3.
    """

    name: str
    severity: int

    def apply(self, inputs: Inputs, seed: int) -> dict[str, Array]:
        """Return the inputs, the floats (noise) or images (the others) among them disturbed."""
        random = np.random.default_rng((seed, self.severity))
        return {name: self._disturb(array, random) for name, array in inputs.items()}

    def _disturb(self, array: Array, random: np.random.Generator) -> Array:
        if not np.issubdtype(array.dtype, np.floating):
            return array
        if self.name == "noise":
            return noise(array, self.severity, random)
        axes = image_axes(array)
        return array if axes is None else _IMAGE[self.name](array, self.severity, axes)


def corruptions_for(inputs: Inputs) -> tuple[Corruption, ...]:
    """Return the corruptions that change these inputs: all for images, noise for other floats, else none."""
    names: tuple[str, ...] = ()
    if any(np.issubdtype(array.dtype, np.floating) for array in inputs.values()):
        names = ("noise",)
    if any(image_axes(array) is not None for array in inputs.values()):
        names = ("noise", *_IMAGE)
    return tuple(Corruption(name, severity) for name in names for severity in SEVERITIES)


def noise(array: Array, severity: int, random: np.random.Generator) -> Array:
    """Add normal noise, its deviation relative to that of the array, and stay inside the array's range."""
    finite = np.isfinite(array)
    known = array[finite]
    if not known.size:
        return array
    deviation = _NOISE[severity - 1] * float(known.std())
    noisy = array + deviation * random.standard_normal(array.shape)
    return np.where(finite, np.clip(noisy, known.min(), known.max()), array).astype(array.dtype)


def blur(images: Array, severity: int, axes: ImageAxes) -> Array:
    """Convolve rows and columns with a Gaussian whose deviation grows with the image's side."""
    from scipy.ndimage import gaussian_filter1d

    sigma, result = _BLUR[severity - 1] * axes.side(images), images
    for axis in (axes.rows, axes.columns):
        result = gaussian_filter1d(result, sigma, axis, mode="nearest")
    return np.asarray(result, dtype=images.dtype)


def contrast(images: Array, severity: int, axes: ImageAxes) -> Array:
    """Pull every pixel towards the mean of its image and channel: (x - mean) c + mean."""
    means = images.mean(axis=(axes.rows, axes.columns), keepdims=True)
    return np.asarray((images - means) * _CONTRAST[severity - 1] + means, dtype=images.dtype)


def shift(images: Array, severity: int, axes: ImageAxes) -> Array:
    """Move the picture down and to the right, by one pixel at least."""
    result = images
    for axis in (axes.rows, axes.columns):
        result = moved(result, max(1, round(_SHIFT[severity - 1] * images.shape[axis])), axis)
    return result


def moved(images: Array, pixels: int, axis: int) -> Array:
    """Return images moved along an axis, the edge repeated where nothing is left."""
    places = np.clip(np.arange(images.shape[axis]) - pixels, 0, images.shape[axis] - 1)
    return np.take(images, places, axis=axis)


_IMAGE: Final[Mapping[str, Callable[[Array, int, ImageAxes], Array]]] = {
    "blur": blur,
    "contrast": contrast,
    "shift": shift,
}
