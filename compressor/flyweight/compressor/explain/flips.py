"""Which answers changed: how often each class became which other, and the samples themselves."""

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.images import image_axes

Array = NDArray[Any]

# As many pictures as a reader looks at; each adds some ten kilobytes to the report.
MOST_SAMPLES: Final = 16
# Larger pictures are shown smaller.
_LONGEST_SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample that is answered otherwise than before.

    Attributes:
        sample: its place in the evaluation data.
        label: its class; None when it is not known.
        baseline: the class that the baseline answers.
        variant: the class that the variant answers.
        picture: the sample as a PNG in a data URI; empty when it is no image.
    """

    sample: int
    label: int | None
    baseline: int
    variant: int
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Flips:
    """All samples that changed.

    Attributes:
        count: how many.
        harmed: of which the baseline was right and the variant is wrong; None without labels.
        mended: the other way round.
        moves: (from, to, how often), the most frequent first; at most twenty.
        samples: some of them, those that were harmed first.
    """

    count: int
    harmed: int | None
    mended: int | None
    moves: tuple[tuple[int, int, int], ...]
    samples: tuple[Flip, ...]


def find_flips(baseline: Array, variant: Array, data: DataSet) -> Flips | None:
    """Return what changed between two models' predicted classes; None where no single class is predicted.

    Args:
        baseline: classes, shape (samples,) or (samples, 1).
        variant: the same.
        data: the samples, and labels where there are any; at least as many as predictions.
    """
    before, after = np.squeeze(baseline), np.squeeze(variant)
    if before.ndim != 1 or before.shape != after.shape or before.dtype.kind not in "iu":
        return None
    changed = np.flatnonzero(before != after)
    labels = _labels(data, len(before))
    harmed = mended = None
    order = changed
    if labels is not None:
        right_before, right_after = before[changed] == labels[changed], after[changed] == labels[changed]
        harmed, mended = int(right_before.sum()), int(right_after.sum())
        order = np.concatenate([changed[right_before], changed[~right_before]])
    moves = Counter(zip(before[changed].tolist(), after[changed].tolist(), strict=True)).most_common(20)
    samples = tuple(
        Flip(
            int(place),
            None if labels is None else int(labels[place]),
            int(before[place]),
            int(after[place]),
            picture_of(data.inputs, int(place)),
        )
        for place in order[:MOST_SAMPLES]
    )
    return Flips(len(changed), harmed, mended, tuple((a, b, n) for (a, b), n in moves), samples)


def _labels(data: DataSet, count: int) -> Array | None:
    if data.labels is None or data.labels.dtype.kind not in "iu":
        return None
    labels = np.squeeze(data.labels[:count])
    return labels if labels.ndim == 1 else None


def picture_of(inputs: Mapping[str, Array], sample: int) -> str:
    """Return a sample as a PNG in a data URI; empty when none of its inputs is an image.

    Values are stretched from the picture's own darkest to its brightest: how they were normalised is unknown.
    """
    for array in inputs.values():
        axes = image_axes(array[:1])
        if axes is None:
            continue
        image = np.asarray(array[sample], dtype=np.float64)
        image = np.moveaxis(image, 0, -1) if axes.rows == 2 else image
        step = max(1, -(-max(image.shape[:2]) // _LONGEST_SIDE))
        return _png(image[::step, ::step])
    return ""


def _png(image: Array) -> str:
    """Encode (rows, columns, channels) of any range."""
    from matplotlib.image import imsave

    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    shown = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
    colours = shown[..., :3] if shown.shape[-1] >= 3 else np.repeat(shown[..., :1], 3, axis=-1)
    file = io.BytesIO()
    imsave(file, colours, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
