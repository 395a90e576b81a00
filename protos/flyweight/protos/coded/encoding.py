"""Coding the arrays of a file: for each the way that takes the fewest bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.limits import MOST_PARTS
from flyweight.protos.coded.marking import BLOCK, Marking, entropy_bits, mark
from flyweight.protos.coded.payloads import Payload
from flyweight.protos.coded.plan import MOST_CLASSES, MOST_ENTRIES, Marks, Piece, Plan, Values
from flyweight.protos.coded.rans import LANE_BITS, Run
from flyweight.protos.coded.tables import Table, fit_table

Array = NDArray[Any]

# What is shorter stays among the literal bytes: the fields of a piece would cost more than they save.
SMALLEST_PAYLOAD: Final = 64
# So many items tell whether an array has more values than a codebook holds.
_SAMPLE: Final = 1 << 14
# Every array can have up to 64 cells, and all of them together no more than a decoder allows.
_MOST_PIECES: Final = MOST_PARTS // (MOST_CLASSES * 4)


@dataclass(frozen=True, slots=True)
class EncodedArrays:
    """A plan, the runs for the entropy coder, and the bytes that are stored as they are."""

    plan: Plan
    runs: list[Run]
    stored: bytes


def encode_arrays(content: bytes, payloads: Sequence[Payload]) -> EncodedArrays:
    """Code the arrays of `content` that are long enough."""
    chosen = [payload for payload in payloads if payload.length >= SMALLEST_PAYLOAD]
    longest = sorted(chosen, key=lambda payload: -payload.length)[:_MOST_PIECES]
    chosen = sorted(longest, key=lambda payload: payload.offset)
    arrays = [_items(content, payload) for payload in chosen]
    books = _Codebooks([_values_of(items) for items in arrays])
    pieces, runs, stored, end = list[Piece](), list[Run](), bytearray(), 0
    for number, (payload, items) in enumerate(zip(chosen, arrays, strict=True)):
        coder = _Coder(items, _row_numbers(payload), books.places[number], books)
        marking, values = coder.choose()
        marks = None if marking is None else marking.marks
        pieces.append(Piece(payload.offset - end, len(items), payload.item_bytes, values, marks))
        coder.write(marking, values, runs, stored)
        end = payload.offset + payload.length
    return EncodedArrays(Plan(tuple(books.books), tuple(pieces)), runs, bytes(stored))


def _items(content: bytes, payload: Payload) -> Array:
    items = np.frombuffer(
        content, f"<u{payload.item_bytes}", payload.length // payload.item_bytes, payload.offset
    )
    return items.astype(items.dtype.newbyteorder("="))


def _row_numbers(payload: Payload) -> list[int]:
    """Return as how many rows an array may be seen: its first axis, or its first two, against the others."""
    shape = [length for length in payload.shape if length > 0]
    if len(shape) < 2 or len(shape) != len(payload.shape):
        return [1]
    return [shape[0]] if len(shape) == 2 else [shape[0], shape[0] * shape[1]]


def _values_of(items: Array) -> Array | None:
    """Return the different values of an array in ascending order; None if they are too many."""
    step = max(1, len(items) // _SAMPLE)
    if len(np.unique(items[::step])) > MOST_ENTRIES:
        return None
    values = np.unique(items)
    return values if len(values) <= MOST_ENTRIES else None


class _Codebooks:
    """The codebooks of a file: arrays whose values all lie in another's codebook share it."""

    def __init__(self, values: Sequence[Array | None]) -> None:
        self.books: list[Array] = []
        self.places: list[int | None] = [None] * len(values)
        known: list[tuple[int, frozenset[int]]] = []
        sizes = [(-len(found), number) for number, found in enumerate(values) if found is not None]
        for _, number in sorted(sizes):
            found = values[number]
            assert found is not None, "only those were listed"
            wanted, width = frozenset(found.tolist()), found.dtype.itemsize
            fits = [place for place, (size, book) in enumerate(known) if size == width and wanted <= book]
            if not fits:
                fits = [len(known)]
                known.append((width, wanted))
                self.books.append(found)
            self.places[number] = fits[0]


class _Coder:
    """One array and the ways to code it."""

    def __init__(self, items: Array, rows: list[int], codebook: int | None, books: _Codebooks) -> None:
        self.items = items
        self.rows = rows
        self.codebook = codebook
        self.book = None if codebook is None else books.books[codebook]

    def choose(self) -> tuple[Marking | None, Values]:
        """Return how places and values take the fewest bits together."""
        dense, dense_bits = self._values(self.items)
        background = self._background()
        if background is None:
            return None, dense
        others = self.items[self.items != background]
        if not len(others):
            return None, dense
        sparse, sparse_bits = self._values(others)
        marking = mark(self.items, background, self.rows)
        bits = sparse_bits + _bits_of(marking.marks, len(self.items))
        bits += sum(fit_table(np.bincount(symbols))[1] for _, symbols in marking.class_runs)
        bits += sum(_run_bits(run) for run, _ in marking.blocks)
        return (marking, sparse) if bits < dense_bits else (None, dense)

    def _background(self) -> int | None:
        """Return the most common value, if it is common enough to be worth a thought."""
        sample = self.items[:: max(1, len(self.items) // _SAMPLE)]
        values, counts = np.unique(sample, return_counts=True)
        place = int(counts.argmax())
        return int(values[place]) if counts[place] * 8 >= len(sample) else None

    def _values(self, items: Array) -> tuple[Values, float]:
        """Return the shorter of codebook and planes for `items`, and about how many bits it takes."""
        if self.book is not None:
            counts = np.bincount(np.searchsorted(self.book, items), minlength=len(self.book))
            table, bits = fit_table(counts)
            return Values((table,), self.codebook), bits + LANE_BITS * len(items)
        tables, bits = list[Table | None](), 0.0
        for plane in _planes(items).T:
            counts = np.bincount(plane, minlength=256)
            # Fitting a table is for those that may win: noise has eight bits a byte.
            fitted = fit_table(counts) if entropy_bits(counts) < 8.0 * len(items) else None
            worth = fitted is not None and fitted[1] < 8.0 * len(items)
            tables.append(fitted[0] if fitted is not None and worth else None)
            bits += fitted[1] + LANE_BITS * len(items) if fitted is not None and worth else 8.0 * len(items)
        return Values(tuple(tables)), bits

    def write(self, marking: Marking | None, values: Values, runs: list[Run], stored: bytearray) -> None:
        """Append the array's runs and stored bytes in the order in which they are decoded."""
        if marking is None:
            for first in range(0, len(self.items), BLOCK):
                self._write_values(self.items[first : first + BLOCK], values, runs, stored)
            return
        runs.extend(marking.class_runs)
        for run, places in marking.blocks:
            runs.append(run)
            self._write_values(self.items[places], values, runs, stored)

    def _write_values(self, items: Array, values: Values, runs: list[Run], stored: bytearray) -> None:
        if self.book is not None:
            table = values.tables[0]
            assert table is not None, "a codebook is never stored"
            runs.append((table, np.searchsorted(self.book, items)))
            return
        for table, plane in zip(values.tables, _planes(items).T, strict=True):
            if table is None:
                stored += plane.tobytes()
            else:
                runs.append((table, plane))


def _planes(items: Array) -> Array:
    """Return the bytes of each item, least significant first, shape (count, item bytes)."""
    little = np.ascontiguousarray(items.astype(items.dtype.newbyteorder("<")))
    return little.view(np.uint8).reshape(len(items), -1)


def _run_bits(run: Run) -> float:
    table, symbols = run
    counts = np.bincount(symbols, minlength=len(table.frequencies))
    present = counts > 0
    bits = float((counts[present] * (table.bits - np.log2(table.frequencies[present]))).sum())
    return bits + LANE_BITS * len(symbols)


def _bits_of(marks: Marks, count: int) -> float:
    """Return roughly what the fields of `marks` take in the plan."""
    width = max(8, 4 + int(count).bit_length())
    return float(24 + sum(width for _ in marks.cells))
