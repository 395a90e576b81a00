"""An entropy coder: rANS (Duda 2013, arXiv:1311.2540), in interleaved lanes (Giesen 2014, arXiv:1402.3392).

Each of a number of lanes holds a state x in [2**31, 2**63). Symbol i of a run belongs to lane i modulo their
number, so that one vectorised step decodes a symbol in every lane; all lanes share one sequence of 32-bit
words. With slot = x mod 2**bits of symbol s:

    decode: x <- f(s) (x >> bits) + slot - start(s); if x < 2**31: x <- x 2**32 + next word
    encode: the inverse, from the last symbol to the first

Everything is whole numbers of fixed width: any machine writes and reads the same bytes. Runs with different
tables follow one another in the same lanes, so that a file pays for its last states once: 4 bytes a lane more
than the symbols in them are worth. States of 64 bits, because what a state x rounds away is about
2**bits / x of a bit; with 32 bits, tables of 14 cost 4 % more.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.errors import CodedError
from flyweight.protos.coded.tables import Table

Array = NDArray[Any]
Run = tuple[Table, Array]
"""A table, and symbols coded with it, shape (count,)."""

_LOWEST: Final = 1 << 31
_FEWEST_LANES: Final = 8
_MOST_LANES: Final = 1 << 14
# A step costs some 15 us of interpreter; with 4,096 steps the lanes' states are 0.2 % of 4-bit symbols.
_STEPS: Final = 4096
# What the lanes' states add to a symbol, at most: 31 bits a lane.
LANE_BITS: Final = 2 * 31 / _STEPS


def lanes_for(symbols: int) -> int:
    """Return the number of lanes, which the format fixes by the number of symbols in all runs of a file."""
    wanted = -(-symbols // _STEPS)
    return min(max(_FEWEST_LANES, 1 << max(0, wanted - 1).bit_length()), _MOST_LANES)


def encode_runs(runs: Sequence[Run]) -> bytes:
    """Return the lanes' states and the words that `Decoder` reads the runs from, in their order."""
    lanes = lanes_for(sum(len(symbols) for _, symbols in runs))
    states = np.full(lanes, _LOWEST, dtype=np.uint64)
    pieces: list[Array] = []
    for table, symbols in reversed(runs):
        if table.constant is None:
            _encode_run(table, symbols, states, pieces)
    words = np.concatenate([np.empty(0, np.uint32), *reversed(pieces)]).astype("<u4")
    return states.astype("<u8").tobytes() + words.tobytes()


def _encode_run(table: Table, symbols: Array, states: Array, pieces: list[Array]) -> None:
    """Push a run onto `states`, in place; `pieces` takes the words of each step."""
    bits, lanes = np.uint64(table.bits), len(states)
    frequencies = table.frequencies.astype(np.uint64)
    starts = table.starts.astype(np.uint64)
    room = np.uint64(63) - bits
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        step = symbols[first : first + lanes]
        frequency, x = frequencies[step], states[: len(step)]
        full = x >= frequency << room
        pieces.append((x[full] & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        x[full] >>= np.uint64(32)
        x[:] = ((x // frequency) << bits) + x % frequency + starts[step]


class Decoder:
    """Reads runs back, in the order they were encoded in."""

    def __init__(self, coded: bytes | memoryview, symbols: int) -> None:
        """Read the lanes' states.

        Args:
            coded: what `encode_runs` returned.
            symbols: how many there are in all runs.

        Raises:
            CodedError: it is too short, or does not end with a whole word.
        """
        lanes = lanes_for(symbols)
        if len(coded) < 8 * lanes or len(coded) % 4:
            raise CodedError("its symbols are cut")
        self._states = np.frombuffer(coded, dtype="<u8", count=lanes).astype(np.uint64)
        if (self._states < _LOWEST).any() or (self._states >> np.uint64(63)).any():
            raise CodedError("its symbols are garbled")
        self._words = np.frombuffer(coded, dtype="<u4", offset=8 * lanes)
        self._next = 0

    def take(self, table: Table, count: int) -> Array:
        """Return the next `count` symbols, uint16 of shape (count,).

        Raises:
            CodedError: there are not enough words.
        """
        if table.constant is not None:
            return np.full(count, table.constant, dtype=np.uint16)
        taken = np.empty(count, dtype=np.uint16)
        lanes = len(self._states)
        for first in range(0, count, lanes):
            self._step(table, taken[first : first + lanes])
        return taken

    def _step(self, table: Table, taken: Array) -> None:
        symbols, frequencies, places = table.slots
        x = self._states[: len(taken)]
        slot = (x & np.uint64((1 << table.bits) - 1)).view(np.int64)
        np.take(symbols, slot, out=taken, mode="clip")
        x >>= np.uint64(table.bits)
        x *= frequencies[slot]
        x += places[slot]
        low = np.flatnonzero(x < _LOWEST)
        words = self._words[self._next : self._next + len(low)]
        if len(words) < len(low):
            raise CodedError("its symbols are cut")
        x[low] = (x[low] << np.uint64(32)) | words
        self._next += len(low)

    def finish(self) -> None:
        """Check that every word was read and every lane is back where the encoder began.

        Raises:
            CodedError: not so.
        """
        if self._next != len(self._words) or (self._states != _LOWEST).any():
            raise CodedError("its symbols are garbled")
