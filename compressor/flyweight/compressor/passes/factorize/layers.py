"""A layer to factorise, whatever graph or module it sits in: its weight, its geometry, its answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import numpy as np

from flyweight.compressor.passes.factorize.decomposition import (
    Array,
    Basis,
    Responses,
    along_channels,
    along_space,
    corrected_bias,
    output_basis,
    spatial_spectrum,
    tucker,
    tucker_spectra,
)
from flyweight.compressor.passes.factorize.ladder import Rung, lost_energy, rank_steps


class Scheme(Enum):
    """How kernels larger than 1 x 1 are divided."""

    CHANNEL = "channel"
    """k x k to fewer channels, then 1 x 1; may follow the layer's answers on calibration data."""

    SPATIAL = "spatial"
    """k x 1 to fewer channels, then 1 x k."""

    TUCKER = "tucker"
    """1 x 1 to fewer channels, k x k among those, 1 x 1 back."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a kernel is applied; (height, width) everywhere.

    Attributes:
        strides: of the kernel.
        pads: zeros before height, before width, after height, after width.
        dilations: of the kernel.
        places: output positions for one sample.
    """

    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    places: float = 1.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution without groups, or a matrix as a kernel of 1 x 1.

    Attributes:
        name: for the report.
        weight: shape (out, in, height, width).
        bias: shape (out,); None where there is no place for one.
        geometry: where it is applied.
        responses: its answers on calibration data; None to approximate the weight itself.
    """

    name: str
    weight: Array
    bias: Array | None
    geometry: Geometry
    responses: Responses | None = None
    _known: list[Basis] = field(default_factory=list, repr=False, compare=False)

    @property
    def basis(self) -> Basis:
        """The directions of its outputs, the strongest first; found once, since that takes long."""
        if not self._known:
            self._known.append(output_basis(self.weight, self.responses))
        return self._known[0]

    @property
    def is_matrix(self) -> bool:
        """Whether the kernel is 1 x 1."""
        return self.weight.shape[2:] == (1, 1)

    @property
    def macs(self) -> float:
        """Multiply-adds for one sample."""
        return self.geometry.places * self.weight.size


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the layers that replace a layer; only the last has the bias."""

    weight: Array
    geometry: Geometry
    bias: Array | None = None


_FLAT: Final = Geometry()


def ladder_of(layer: Layer, scheme: Scheme, step: int) -> list[Rung]:
    """Return the layer as it is, and every factorisation that needs fewer multiply-adds.

    Ranks are multiples of `step`.
    """
    out, inner, height, width = layer.weight.shape
    places, (down, across) = layer.geometry.places, layer.geometry.strides
    rungs = [Rung((), layer.macs, 0.0)]
    if layer.is_matrix or scheme is Scheme.CHANNEL:
        spectrum = layer.basis.energies
        for rank in rank_steps(min(out, inner * height * width), step):
            macs = places * rank * (inner * height * width + out)
            rungs.append(Rung((rank,), macs, lost_energy(spectrum, rank)))
    elif scheme is Scheme.SPATIAL:
        spectrum = spatial_spectrum(layer.weight)
        for rank in rank_steps(min(inner * height, out * width), step):
            macs = places * rank * (inner * height * across + out * width)
            rungs.append(Rung((rank,), macs, lost_energy(spectrum, rank)))
    else:
        outputs, inputs = tucker_spectra(layer.weight)
        for one in [*rank_steps(out, step), out]:
            for other in [*rank_steps(inner, step), inner]:
                macs = places * (other * inner * down * across + one * other * height * width + out * one)
                error = min(1.0, lost_energy(outputs, one) + lost_energy(inputs, other))
                rungs.append(Rung((one, other), macs, error))
    return [rungs[0], *(rung for rung in rungs[1:] if rung.macs < layer.macs)]


def factorise(layer: Layer, scheme: Scheme, ranks: Sequence[int]) -> list[Stage]:
    """Return the layers that replace `layer`, in the order of their run."""
    if layer.is_matrix or scheme is Scheme.CHANNEL:
        basis = layer.basis
        first, second = along_channels(layer.weight, basis, ranks[0])
        bias = layer.bias
        if bias is not None:
            bias = corrected_bias(bias, layer.responses, basis, ranks[0])
        return [Stage(first, layer.geometry), Stage(second[:, :, None, None], _FLAT, bias)]
    if scheme is Scheme.SPATIAL:
        return _in_space(layer, ranks[0])
    narrow, core, wide = tucker(layer.weight, ranks[0], ranks[1])
    return [
        Stage(narrow[:, :, None, None], _FLAT),
        Stage(core, layer.geometry),
        Stage(wide[:, :, None, None], _FLAT, layer.bias),
    ]


def _in_space(layer: Layer, rank: int) -> list[Stage]:
    first, second = along_space(layer.weight, rank)
    (down, across), (top, left, bottom, right) = layer.geometry.strides, layer.geometry.pads
    tall = Geometry((down, 1), (top, 0, bottom, 0), (layer.geometry.dilations[0], 1))
    flat = Geometry((1, across), (0, left, 0, right), (1, layer.geometry.dilations[1]))
    return [Stage(first, tall), Stage(second, flat, layer.bias)]


class Watcher:
    """Adds up what a layer answers, some places of each batch, in float64."""

    def __init__(self, channels: int, *, centred: bool) -> None:
        self._centred = centred
        self._rows = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, answers: Array) -> None:
        """Take in answers, shape (rows, channels)."""
        some = answers[:: max(1, len(answers) // _MOST_ROWS)].astype(np.float64)
        self._rows += len(some)
        self._sum += some.sum(axis=0)
        self._products += some.T @ some

    def responses(self) -> Responses | None:
        """Return what was seen; None where that was nothing, or not finite."""
        if not self._rows or not np.isfinite(self._products).all():
            return None
        moment = self._products / self._rows
        mean = self._sum / self._rows if self._centred else np.zeros_like(self._sum)
        return Responses(mean, moment - np.outer(mean, mean))


_MOST_ROWS: Final = 4096
"""Of a batch: neighbouring places of an image tell the same again."""
