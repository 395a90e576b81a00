"""Turning a plan and its symbols back into arrays, block by block, in bounded memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.errors import CodedError
from flyweight.protos.coded.marking import BLOCK, flat_indices, members
from flyweight.protos.coded.plan import Piece, Plan
from flyweight.protos.coded.rans import Decoder
from flyweight.protos.coded.tables import Table, gap_table

Array = NDArray[Any]


class Stored:
    """The bytes that are stored as they are, read one part after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._place = 0

    def take(self, count: int) -> Array:
        """Return the next `count` bytes.

        Raises:
            CodedError: there are fewer.
        """
        part = np.frombuffer(self._content[self._place : self._place + count], dtype=np.uint8)
        if len(part) < count:
            raise CodedError("its stored bytes are cut")
        self._place += count
        return part

    def finish(self) -> None:
        """Check that all were taken.

        Raises:
            CodedError: not so.
        """
        if self._place != len(self._content):
            raise CodedError("its stored bytes go on after their end")


def decode_piece(piece: Piece, plan: Plan, symbols: Decoder, stored: Stored, into: memoryview) -> None:
    """Write an array's bytes into `into`, which has the array's length.

    Raises:
        CodedError: symbols and plan contradict each other.
    """
    items = np.frombuffer(into, dtype=f"<u{piece.item_bytes}")
    read = _values_reader(piece, plan, symbols, stored)
    if piece.marks is None:
        for first in range(0, piece.count, BLOCK):
            items[first : first + BLOCK] = read(min(BLOCK, piece.count - first))
        return
    marks, columns = piece.marks, piece.count // piece.marks.rows
    items[:] = marks.background
    of_rows = _members(marks.row_classes, marks.rows, symbols)
    of_columns = _members(marks.column_classes, columns, symbols)
    cells = iter(marks.cells)
    for of_row in of_rows:
        for of_column in of_columns:
            width, height = _length(of_column), _length(of_row)
            for places in _places(*next(cells), width * height, symbols):
                items[flat_indices(places, of_row, of_column, (width, columns))] = read(len(places))


def _values_reader(piece: Piece, plan: Plan, symbols: Decoder, stored: Stored) -> Callable[[int], Array]:
    """Return a function that reads the next so many values."""
    values = piece.values
    if values.codebook is not None:
        book, table = plan.codebooks[values.codebook], values.tables[0]
        assert table is not None, "the plan was read with one"
        return lambda count: book[symbols.take(table, count)]

    def read(count: int) -> Array:
        planes = np.empty((count, piece.item_bytes), dtype=np.uint8)
        for place, table in enumerate(values.tables):
            planes[:, place] = stored.take(count) if table is None else symbols.take(table, count)
        return planes.view(f"<u{piece.item_bytes}")[:, 0]

    return read


def _members(classes: Table | None, length: int, symbols: Decoder) -> list[slice | Array]:
    """Return the indices of each class along an axis, an empty one for a class that nothing is of."""
    if classes is None:
        return members(None, length)
    taken = symbols.take(classes, length)
    return [np.flatnonzero(taken == number) for number in range(len(classes.frequencies))]


def _length(of_axis: slice | Array) -> int:
    return of_axis.stop if isinstance(of_axis, slice) else len(of_axis)


def _places(ones: int, long_gaps: int, size: int, symbols: Decoder) -> Any:
    """Yield the places that a cell marks, a block of gaps at a time."""
    if not ones:
        return
    if ones > size:
        raise CodedError("a cell of it marks more items than it has")
    table = gap_table(ones, size)
    longest, left, end = len(table.frequencies) - 1, ones + long_gaps, 0
    marked = 0
    while left:
        block = symbols.take(table, min(BLOCK, left))
        left -= len(block)
        ends = end + np.cumsum(np.where(block == longest, longest, block.astype(np.int64) + 1))
        end = int(ends[-1])
        places = ends[block != longest] - 1
        marked += len(places)
        if end > size or marked > ones:
            raise CodedError("a cell of it marks items beyond its end")
        yield places
    if marked != ones:
        raise CodedError("a cell of it marks fewer items than it says")
