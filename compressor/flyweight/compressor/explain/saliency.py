"""Do both models look at the same places? Maps of what an answer depends on, compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.evaluate.images import image_axes

Array = NDArray[Any]
Answer = Callable[[Mapping[str, Array]], Array]
"""Inputs, first axis = samples -> scores, (samples, classes)."""

# The picture is covered in 7 x 7 places: enough to tell an object from its background.
_CELLS: Final = 7
# Inputs that are no pictures are covered in this many stretches of their values.
_STRETCHES: Final = 32


@dataclass(frozen=True, slots=True)
class SaliencyAgreement:
    """How alike two models' maps are.

    Attributes:
        correlation: mean over samples of Spearman's rank correlation between the maps; 1 is the same order.
        lowest: the smallest of them.
        samples: that were compared.
    """

    correlation: float
    lowest: float
    samples: int


def compare_saliency(
    baseline: Answer, variant: Answer, inputs: Mapping[str, Array]
) -> SaliencyAgreement | None:
    """Compare what two models' answers depend on; None for inputs that cannot be covered.

    A part of the input is covered by its mean, and the map holds how far the score of the class that the
    baseline answers falls (occlusion: Zeiler and Fergus, "Visualizing and Understanding Convolutional
    Networks", ECCV 2014, section 4.2). It needs no gradient, so it looks at the integer graph as it runs.

    Args:
        baseline: runs the original.
        variant: runs the variant.
        inputs: some samples.
    """
    name = _covered_input(inputs)
    if name is None:
        return None
    masks = _masks(inputs[name])
    samples = len(inputs[name])
    classes = baseline(inputs).argmax(axis=1)
    maps = [_map(answer, inputs, name, masks, classes) for answer in (baseline, variant)]
    found = [rank_correlation(maps[0][:, sample], maps[1][:, sample]) for sample in range(samples)]
    return SaliencyAgreement(float(np.mean(found)), float(np.min(found)), samples)


def _covered_input(inputs: Mapping[str, Array]) -> str | None:
    """Return the input to cover: the largest of floats that holds more than one value for a sample."""
    floats = [
        name
        for name, array in inputs.items()
        if array.dtype.kind == "f" and array[0].size > 1 and array.ndim > 1
    ]
    return max(floats, key=lambda name: inputs[name][0].size, default=None)


def _masks(array: Array) -> list[Array]:
    """Return boolean masks of one sample's shape, which cover it between them."""
    shape = array.shape[1:]
    axes = image_axes(array)
    if axes is None:
        places = np.arange(int(np.prod(shape))).reshape(shape)
        count = min(_STRETCHES, places.size)
        return [places * count // places.size == stretch for stretch in range(count)]
    rows = np.arange(array.shape[axes.rows]) * _CELLS // array.shape[axes.rows]
    columns = np.arange(array.shape[axes.columns]) * _CELLS // array.shape[axes.columns]
    masks = []
    for row in range(_CELLS):
        for column in range(_CELLS):
            cell = np.outer(rows == row, columns == column)
            cell = cell[None] if axes.rows == 2 else cell[..., None]
            masks.append(np.broadcast_to(cell, shape))
    return [mask for mask in masks if mask.any()]


def _map(answer: Answer, inputs: Mapping[str, Array], name: str, masks: list[Array], classes: Array) -> Array:
    """Return how far each sample's score falls when each part is covered, (parts, samples)."""
    rows = np.arange(len(classes))
    clean = answer(inputs)[rows, classes]
    falls = []
    for mask in masks:
        covered = np.array(inputs[name])
        mean = covered.reshape(len(covered), -1).mean(axis=1)
        covered = np.where(mask[None], mean.reshape(-1, *[1] * mask.ndim), covered).astype(covered.dtype)
        falls.append(clean - answer({**inputs, name: covered})[rows, classes])
    return np.array(falls)


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's correlation: Pearson's between ranks, ties sharing their mean rank.

    Two maps without any variation are alike, 1; one with and one without are not, 0.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (one, other)]
    spreads = [float(np.std(rank)) for rank in ranks]
    if min(spreads) == 0:
        return 1.0 if max(spreads) == 0 else 0.0
    return float(np.clip(np.corrcoef(*ranks)[0, 1], -1.0, 1.0))
