"""Frequency tables: how probable each symbol is, in whole numbers that every machine computes alike.

A table gives symbol s the share f(s) / 2**bits; an entropy coder spends log2(2**bits / f(s)) bits on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.errors import CodedError

Array = NDArray[Any]

# 2**14 shares tell 1,024 gaps apart, and a decoder's tables stay in a processor's nearest caches.
MOST_BITS: Final = 14
MOST_SYMBOLS: Final = 1 << 10
_ONE: Final = 1 << 32


@dataclass(frozen=True)
class Table:
    """The share of each symbol.

    Attributes:
        bits: the shares add up to 2**bits.
        frequencies: of the symbols 0, 1, ..., shape (symbols,); 0 for what never comes.
    """

    bits: int
    frequencies: Array

    @cached_property
    def starts(self) -> Array:
        """Return where each symbol's slots begin, shape (symbols,)."""
        return np.cumsum(self.frequencies) - self.frequencies

    @cached_property
    def constant(self) -> int | None:
        """Return the symbol that has every slot and so costs nothing; None where two or more can come."""
        present = np.flatnonzero(self.frequencies)
        return int(present[0]) if len(present) == 1 else None

    @cached_property
    def slots(self) -> tuple[Array, Array, Array]:
        """Return the symbol, its frequency, and the place in its share, of each of the 2**bits slots."""
        symbols = np.repeat(np.arange(len(self.frequencies), dtype=np.uint16), self.frequencies)
        frequencies = self.frequencies.astype(np.uint64)[symbols]
        places = np.arange(1 << self.bits, dtype=np.uint64) - self.starts.astype(np.uint64)[symbols]
        return symbols, frequencies, places


def table_of(bits: int, frequencies: Sequence[int]) -> Table:
    """Return the table that a file describes.

    Raises:
        CodedError: the shares do not add up.
    """
    if bits > MOST_BITS or len(frequencies) > MOST_SYMBOLS or sum(frequencies) != 1 << bits:
        raise CodedError("the shares of a frequency table do not add up")
    return Table(bits, np.array(frequencies, dtype=np.int64))


def gap_table(ones: int, size: int) -> Table:
    """Return the table of the gaps between `ones` marked places among `size`.

    Where places are marked independently with p = ones / size, gaps are geometric, P(g) = p (1 - p)**g, and
    coding them costs what coding every place would, -p log2 p - (1 - p) log2(1 - p) bits each (Golomb 1966).
    The last symbol says that a gap is at least as long as there are symbols before it, and goes on. Shares
    are P rounded down in fixed point of 32 bits, but at least one slot; all of it in integers.
    """
    miss = ((size - ones) << 32) // size
    powers = np.array([_ONE - 1], dtype=np.uint64)  # (1 - p)**g; an ulp below 1 keeps products in 64 bits
    factor = miss
    while len(powers) < MOST_SYMBOLS:
        powers = np.concatenate([powers, (powers * np.uint64(factor)) >> np.uint64(32)])
        factor = factor * factor >> 32
    # Gaps less likely than half a slot are left to the last symbol.
    likely = ((powers * np.uint64(_ONE - 1 - miss if miss else _ONE - 1)) >> np.uint64(32)) << np.uint64(
        MOST_BITS
    ) >= np.uint64(_ONE // 2)
    gaps = min(max(1, int(np.count_nonzero(likely))), MOST_SYMBOLS - 1)
    spare = (1 << MOST_BITS) - gaps - 1
    below = (np.uint64(_ONE) - powers[: gaps + 1]) * np.uint64(spare) >> np.uint64(32)
    bounds = np.arange(gaps + 1, dtype=np.int64) + below.astype(np.int64)
    bounds[0] = 0
    return Table(MOST_BITS, np.diff(bounds, append=1 << MOST_BITS))


def fit_table(counts: Array) -> tuple[Table, float]:
    """Return the table under which table and symbols together take the least room, and that many bits.

    Args:
        counts: how often each symbol comes, shape (symbols,), at least one above 0.
    """
    best: tuple[Table, float] | None = None
    # A coarse table is shorter to write down: one byte a symbol up to 7 bits.
    for bits in (4, 5, 6, 7, 8, 10, 12, MOST_BITS):
        if np.count_nonzero(counts) > 1 << bits:
            continue
        table = Table(bits, _shares(counts, 1 << bits))
        present = counts > 0
        shares = table.frequencies[present] / (1 << bits)
        cost = float(-(counts[present] * np.log2(shares)).sum())
        cost += 8.0 * float((1 + (table.frequencies >= 128)).sum()) + 16.0
        if best is None or cost < best[1]:
            best = table, cost
    assert best is not None, "no alphabet here has more symbols than slots"
    return best


def _shares(counts: Array, total: int) -> Array:
    """Return whole shares of `total` in proportion to `counts`, at least 1 where the count is not 0."""
    exact = counts * (total / counts.sum())
    shares = np.where(counts > 0, np.maximum(1, np.round(exact)), 0).astype(np.int64)
    # Give to, or take from, whoever loses least by it: the change in bits is counts * log2(1 +- 1/shares).
    while (difference := total - int(shares.sum())) != 0:
        step = 1 if difference > 0 else -1
        able = (counts > 0) & (shares + step >= 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(able, counts * np.log2(1 + step / np.maximum(shares, 1)), -np.inf)
        order = np.argsort(-gain, kind="stable")[: min(abs(difference), int(able.sum()))]
        shares[order] += step
    return shares
