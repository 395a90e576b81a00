"""The values that weights of a few bits may take: evenly spaced, powers of two, or found by k-means."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.passes.share.kmeans import share

Array = NDArray[Any]

MOST_BITS: Final = 8

# A float32 has no exponents below that keep their precision.
_SMALLEST_EXPONENT: Final = -126


class Spacing(Enum):
    """Where the values of a grid lie."""

    UNIFORM = "uniform"
    POWER_OF_TWO = "power-of-two"
    CODEBOOK = "codebook"


@dataclass(frozen=True, slots=True)
class Steps:
    """Weights on a uniform grid: (codes - zeros) * scales, broadcast over rows.

    Attributes:
        codes: integers, of the weights' shape (rows, n).
        scales: float32, (rows, 1).
        zeros: integers, (rows, 1); all zero where the grid is symmetric.
    """

    codes: Array
    scales: Array
    zeros: Array

    @property
    def values(self) -> Array:
        """What the codes stand for, float32."""
        return ((self.codes - self.zeros) * self.scales).astype(np.float32)


def _usable(scales: Array) -> Array:
    """Return steps, 1 where there is none: of zeros, and of weights too small to be divided (subnormal)."""
    return np.where(scales > 0, scales, 1)


def uniform(rows: Array, bits: int, *, symmetric: bool, per_channel: bool) -> Steps:
    """Return weights on evenly spaced values.

    Symmetric: s = max|w| / (2**(bits-1) - 1), q = round(w / s) in [-(2**(bits-1) - 1), 2**(bits-1) - 1].
    Asymmetric: s = (max - min) / (2**bits - 1) over a range that holds zero, z = round(-min / s),
    q = round(w / s) + z in [0, 2**bits - 1] (Jacob et al. 2018, equation 1). One bit and symmetric: s =
    mean|w|, q = sign(w), which is the closest of all s * {-1, 1} (Rastegari et al. 2016, "XNOR-Net",
    equation 6).

    Args:
        rows: (rows, n), finite; a row is an output channel.
        bits: 1 to 8.
        symmetric: around zero, without a zero point.
        per_channel: a scale for each row, or one for all.
    """
    groups = rows if per_channel else rows.reshape(1, -1)
    if symmetric and bits == 1:
        scales = np.abs(groups).mean(axis=1, keepdims=True)
        return _steps(rows, np.where(rows >= 0, 1, -1), scales, np.zeros_like(scales, dtype=int))
    if symmetric:
        largest = 2 ** (bits - 1) - 1
        peaks = np.abs(groups).max(axis=1, keepdims=True)
        scales = _usable(peaks / largest)
        codes = np.clip(np.rint(rows / scales), -largest, largest)
        return _steps(rows, codes, scales, np.zeros_like(scales, dtype=int))
    low = np.minimum(groups.min(axis=1, keepdims=True), 0)
    high = np.maximum(groups.max(axis=1, keepdims=True), 0)
    scales = _usable((high - low) / (2**bits - 1))
    zeros = np.clip(np.rint(-low / scales), 0, 2**bits - 1)
    return _steps(rows, np.clip(np.rint(rows / scales) + zeros, 0, 2**bits - 1), scales, zeros)


def _steps(rows: Array, codes: Array, scales: Array, zeros: Array) -> Steps:
    shape = (len(rows), 1)
    return Steps(
        codes.astype(np.int64),
        np.broadcast_to(scales, shape).astype(np.float32),
        np.broadcast_to(zeros, shape).astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class Codes:
    """Weights on a grid of any values: table[places].

    Attributes:
        places: integers, of the weights' shape.
        table: float32, at most 256 values in ascending order.
    """

    places: Array
    table: Array

    @property
    def values(self) -> Array:
        """What the places stand for, float32."""
        return self.table[self.places]


def power_of_two(values: Array, bits: int) -> Codes:
    """Return weights on zero and signed powers of two, by which an integer machine multiplies with a shift.

    The grid is {0, +-2**n2, ..., +-2**n1}, n1 = floor(log2(4 * max|w| / 3)), n2 = n1 + 1 - 2**(bits-2); a
    magnitude goes to the power p for which 3/4 p <= |w| < 3/2 p, and below 2**(n2-1) to zero (A. Zhou et
    al., "Incremental Network Quantization", ICLR 2017, equations 1 to 4, with one bit for zero).

    Args:
        values: finite, any shape.
        bits: 2 to 8; two are -p, 0 and p.
    """
    peak = float(np.abs(values).max(initial=0.0))
    first = int(np.floor(np.log2(4 * peak / 3))) if peak else _SMALLEST_EXPONENT - 1
    if first < _SMALLEST_EXPONENT:
        return Codes(np.zeros(values.shape, dtype=np.int64), np.zeros(1, dtype=np.float32))
    last = max(first + 1 - 2 ** (bits - 2), _SMALLEST_EXPONENT)
    powers = 2.0 ** np.arange(last, first + 1)
    magnitudes = np.abs(values)
    # Between neighbours p and 2p the bound is 3/2 p; between zero and the smallest power it is half of that.
    bounds = np.concatenate([[powers[0] / 2], powers[:-1] * 1.5])
    nearest = np.searchsorted(bounds, magnitudes, side="right")
    table = np.concatenate([-powers[::-1], [0.0], powers]).astype(np.float32)
    return Codes(len(powers) + np.where(values < 0, -nearest, nearest), table)


def codebook(values: Array, bits: int) -> Codes:
    """Return weights on at most 2**bits values found by k-means (Han, Mao and Dally 2016, section 3).

    Args:
        values: finite, any shape.
        bits: 1 to 8.
    """
    [places], table = share([values], bits)
    return Codes(places.astype(np.int64), table.astype(np.float32))
