"""Sharing tensors by groups, and what it did to them in figures; for ONNX graphs and torch modules alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import PassError
from flyweight.compressor.noise import signal_to_noise
from flyweight.compressor.passes.share.grouping import SMALLEST_TENSOR, Kind, Sharing
from flyweight.compressor.passes.share.kmeans import share

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that may be shared: its name, what it is for, and its values."""

    name: str
    kind: Kind
    values: Array


@dataclass(frozen=True, slots=True)
class Shared:
    """A tensor's places in its codebook, of its shape, and the codebook."""

    weight: Weight
    places: Array
    codebook: Array

    @property
    def values(self) -> Array:
        """Return the shared values, of the tensor's shape and type."""
        values: Array = self.codebook.astype(self.weight.values.dtype)[self.places]
        return values


def share_weights(weights: Sequence[Weight], sharing: Sharing) -> list[Shared]:
    """Return the tensors with their codebooks, in their order, without those that are left as they are.

    Raises:
        PassError: there is nothing to share, or a weight is not finite.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for number, weight in enumerate(weights):
        group = sharing.group_of(weight.name, weight.kind)
        # Biases share one codebook, which is worth it for many short ones.
        long_enough = weight.values.size >= SMALLEST_TENSOR or weight.kind is Kind.VECTOR
        if group[1] and long_enough:
            groups.setdefault(group, []).append(number)
            if not np.isfinite(weight.values).all():
                raise PassError(f"The weight {weight.name!r} holds values that are not finite numbers.")
    if not groups:
        raise PassError("The model has no floating-point weights of layers to share.")
    shared: dict[int, Shared] = {}
    for (_, bits), numbers in groups.items():
        places, codebook = share([weights[number].values for number in numbers], bits)
        for number, own in zip(numbers, places, strict=True):
            shared[number] = Shared(weights[number], own, codebook)
    return [shared[number] for number in sorted(shared)]


def describe(shared: Sequence[Shared]) -> str:
    """Return a sentence for the report: how many tensors share how many values, at what error.

    The signal-to-noise ratio is 10 log10(sum w**2 / sum (w - shared w)**2), in dB, of the worst tensor.
    """
    books = {id(one.codebook): one.codebook for one in shared}
    largest = max(len(book) for book in books.values())
    worst = min(shared, key=_ratio)
    count = sum(one.places.size for one in shared)
    exact = not np.isfinite(_ratio(worst))
    noise = (
        "no value changed"
        if exact
        else f"signal to noise {_ratio(worst):.1f} dB at worst ({worst.weight.name})"
    )
    return (
        f"{count} weights of {len(shared)} tensors share {len(books)} codebook(s) of at most {largest} "
        f"values; {noise}."
    )


def _ratio(one: Shared) -> float:
    return signal_to_noise(one.weight.values, one.values)
