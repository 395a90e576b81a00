"""Choosing how the marked items of a sparse array are written: rows and columns in classes of density."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.plan import LONGEST_CLASSED, Marks
from flyweight.protos.coded.rans import Run
from flyweight.protos.coded.tables import Table, fit_table, gap_table

Array = NDArray[Any]

# Gaps and values follow each other in blocks of so many gaps, so that a decoder holds no more than a block.
BLOCK: Final = 1 << 18
# Classes that are tried for each axis; finer ones describe noise.
_NUMBERS: Final = (1, 2, 4, 8)
# Under this, no classes pay for their own description.
_SMALLEST_CLASSED: Final = 2048
# The plan's fields of a cell, roughly.
_CELL_BITS: Final = 20.0
_ROUNDS: Final = 12


@dataclass(frozen=True, slots=True)
class _Division:
    """Classes of the rows and columns of a matrix; None for an axis with one class."""

    row_classes: Array | None
    column_classes: Array | None
    bits: float


@dataclass(frozen=True, slots=True)
class Marking:
    """The fields of a marked array, and the runs of its places; each cell's values go between its blocks."""

    marks: Marks
    class_runs: tuple[Run, ...]
    blocks: tuple[tuple[Run, Array], ...]
    """A run of gaps, and the flat indices of the items it marks."""


def entropy_bits(counts: Array) -> float:
    """Return how many bits symbols of these counts take under their own distribution (Shannon 1948)."""
    present = counts[counts > 0].astype(np.float64)
    return float((present * np.log2(present.sum() / present)).sum()) if len(present) else 0.0


def mark(items: Array, background: int, shapes: Sequence[int]) -> Marking:
    """Return the shortest marking found of the items that are not `background`.

    Args:
        items: unsigned numbers, shape (count,).
        background: what most of them are.
        shapes: numbers of rows that the items may be seen as; each divides count.
    """
    marked = items != background
    best, best_rows = _Division(None, None, _bits(np.array([[marked.sum()]]), np.array([[len(items)]]))), 1
    for rows in shapes if len(items) >= _SMALLEST_CLASSED else ():
        division = _divide(marked.reshape(rows, -1))
        if division.bits < best.bits:
            best, best_rows = division, rows
    return _write(marked.reshape(best_rows, -1), background, best)


def _divide(matrix: Array) -> _Division:
    """Return the cheapest of some divisions of a boolean matrix into classes of rows and columns."""
    rows, columns = matrix.shape
    found = [_Division(None, None, float("inf"))]
    row_choices = _choices(matrix.mean(axis=1)) if rows <= LONGEST_CLASSED else {1: None}
    column_choices = _choices(matrix.mean(axis=0)) if columns <= LONGEST_CLASSED else {1: None}
    for row_classes in row_choices.values():
        folded = _fold(matrix, row_classes)
        sizes = np.bincount(np.zeros(rows, np.int64) if row_classes is None else row_classes)
        for column_classes in column_choices.values():
            ones = _fold(folded.T, column_classes).T
            widths = np.bincount(np.zeros(columns, np.int64) if column_classes is None else column_classes)
            bits = _bits(ones, np.outer(sizes, widths))
            bits += sum(_class_bits(classes) for classes in (row_classes, column_classes))
            found.append(_Division(row_classes, column_classes, bits))
    return min(found, key=lambda division: division.bits)


def _fold(matrix: Array, classes: Array | None) -> Array:
    """Return the sums of the rows of each class, shape (classes, columns)."""
    if classes is None:
        total: Array = matrix.sum(axis=0, keepdims=True, dtype=np.int64)
        return total
    return np.stack(
        [matrix[classes == number].sum(axis=0, dtype=np.int64) for number in range(int(classes.max()) + 1)]
    )


def _bits(ones: Array, sizes: Array) -> float:
    """Return what it takes to say which of `sizes` items are the `ones`, in each cell and altogether."""
    pairs = np.stack([ones.ravel(), (sizes - ones).ravel()])
    return sum(entropy_bits(pair) + _CELL_BITS for pair in pairs.T)


def _class_bits(classes: Array | None) -> float:
    return 0.0 if classes is None else fit_table(np.bincount(classes))[1]


def _choices(densities: Array) -> dict[int, Array | None]:
    """Return classes of an axis by density, by their number.

    Lloyd's algorithm on the square roots of the densities, which makes the spread of counts alike everywhere
    (Anscombe 1948); which classes come out decides about length only, never about content.
    """
    choices: dict[int, Array | None] = {1: None}
    roots = np.sqrt(densities)
    for number in _NUMBERS[1:]:
        if len(np.unique(roots)) < number:
            break
        present, classes = np.unique(_clusters(roots, number), return_inverse=True)
        if len(present) > 1:
            choices[len(present)] = classes
    return choices


def _clusters(roots: Array, number: int) -> Array:
    centres = np.quantile(roots, (np.arange(number) + 0.5) / number)
    classes = np.zeros(len(roots), dtype=np.int64)
    for _ in range(_ROUNDS):
        classes = np.searchsorted((centres[1:] + centres[:-1]) / 2, roots)
        centres = np.array(
            [roots[classes == c].mean() if (classes == c).any() else centres[c] for c in range(number)]
        )
    return classes


def _write(matrix: Array, background: int, division: _Division) -> Marking:
    rows, columns = matrix.shape
    tables, runs = list[Table | None](), list[Run]()
    for classes in (division.row_classes, division.column_classes):
        tables.append(None if classes is None else fit_table(np.bincount(classes))[0])
        if classes is not None and (table := tables[-1]) is not None:
            runs.append((table, classes))
    cells, blocks = list[tuple[int, int]](), list[tuple[Run, Array]]()
    for of_row in members(division.row_classes, rows):
        for of_column in members(division.column_classes, columns):
            places = np.flatnonzero(matrix[of_row][:, of_column])
            width = len(range(columns)[of_column]) if isinstance(of_column, slice) else len(of_column)
            height = len(range(rows)[of_row]) if isinstance(of_row, slice) else len(of_row)
            gaps, made = _cell(places, height * width)
            cells.append((len(places), gaps))
            blocks += [(run, flat_indices(found, of_row, of_column, (width, columns))) for run, found in made]
    marks = Marks(background, rows, tables[0], tables[1], tuple(cells))
    return Marking(marks, tuple(runs), tuple(blocks))


def members(classes: Array | None, length: int) -> list[slice | Array]:
    """Return the indices of each class along an axis; a slice over all of it for a single class."""
    if classes is None:
        return [slice(0, length)]
    return [np.flatnonzero(classes == number) for number in range(int(classes.max()) + 1)]


def flat_indices(
    places: Array, of_row: slice | Array, of_column: slice | Array, widths: tuple[int, int]
) -> Array:
    """Return where the places of a cell lie in the whole array.

    Args:
        places: in the cell, row after row, shape (marked,).
        of_row: the cell's rows, as `members` returns them.
        of_column: its columns.
        widths: the columns of the cell, and of the array.
    """
    row, column = np.divmod(places, widths[0])
    if not isinstance(of_row, slice):
        row = of_row[row]
    if not isinstance(of_column, slice):
        column = of_column[column]
    flat: Array = row * widths[1] + column
    return flat


def _cell(places: Array, size: int) -> tuple[int, list[tuple[Run, Array]]]:
    """Return how many long gaps a cell has, and its runs of gaps with the places each of them marks."""
    if not len(places):
        return 0, []
    table = gap_table(len(places), size)
    longest = len(table.frequencies) - 1
    gaps = np.diff(places, prepend=-1) - 1
    long = gaps // longest
    symbols = np.full(len(places) + int(long.sum()), longest, dtype=np.uint16)
    ends = np.cumsum(long + 1) - 1
    symbols[ends] = gaps % longest
    made, done = list[tuple[Run, Array]](), 0
    for first in range(0, len(symbols), BLOCK):
        block = symbols[first : first + BLOCK]
        marked = int(np.count_nonzero(block != longest))
        made.append(((table, block), places[done : done + marked]))
        done += marked
    return int(long.sum()), made
