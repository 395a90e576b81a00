"""The plan of a coded file: what its pieces are and how each is coded, as data and as fields.

    plan     = codebooks, pieces
    piece    = literal bytes before it, length in items, bytes of an item, mode, [marks], values
    marks    = [background], rows, row classes, column classes, for each cell: marked items, long gaps
    values   = a codebook's number and a table over it, or a table or "stored" for each byte of an item

An array is either dense, all of its items coded one after the other, or marked: most items are one value, the
background, and only the places and values of the others are coded.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.coded.errors import CodedError
from flyweight.protos.coded.fields import Reader, Writer
from flyweight.protos.coded.limits import MOST_PARTS
from flyweight.protos.coded.tables import MOST_BITS, Table, table_of

Array = NDArray[Any]

# More values than this are not a codebook, and are coded byte by byte.
MOST_ENTRIES: Final = 256
MOST_CLASSES: Final = 16
# Classes are looked up by row and column; longer axes have none.
LONGEST_CLASSED: Final = 1 << 20

_MARKED, _PLANES, _BACKGROUND = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Marks:
    """Which items of an array, seen as a matrix, differ from the background.

    Rows and columns fall into classes by how densely they are marked; the items of a row class and a column
    class are a cell, within which marks are taken to be equally likely everywhere.

    Attributes:
        background: the value of the items that are not marked, as an unsigned number.
        rows: of the matrix.
        row_classes, column_classes: how common each class is; None for a single class.
        cells: marked items and long gaps (tables.gap_table) of each cell, row classes first.
    """

    background: int
    rows: int
    row_classes: Table | None
    column_classes: Table | None
    cells: tuple[tuple[int, int], ...]

    @property
    def marked(self) -> int:
        """Return how many items are marked."""
        return sum(ones for ones, _ in self.cells)


@dataclass(frozen=True, slots=True)
class Values:
    """How items are coded: as places in a codebook, or byte by byte, a plane of bytes stored where None."""

    tables: tuple[Table | None, ...]
    codebook: int | None = None

    @property
    def coded(self) -> int:
        """Return how many symbols an item takes."""
        return sum(table is not None for table in self.tables)


@dataclass(frozen=True, slots=True)
class Piece:
    """An array, and the number of literal bytes before it."""

    literal: int
    count: int
    item_bytes: int
    values: Values
    marks: Marks | None

    @property
    def symbols(self) -> int:
        """Return how many symbols the piece takes from the entropy coder."""
        if self.marks is None:
            return self.count * self.values.coded
        marks = self.marks
        places = sum(ones + gaps for ones, gaps in marks.cells)
        places += marks.rows if marks.row_classes is not None else 0
        places += self.count // marks.rows if marks.column_classes is not None else 0
        return places + marks.marked * self.values.coded


@dataclass(frozen=True, slots=True)
class Plan:
    """Codebooks, each an array of unsigned numbers, and pieces in their order."""

    codebooks: tuple[Array, ...]
    pieces: tuple[Piece, ...]


def write_plan(plan: Plan) -> bytes:
    """Return the plan as fields."""
    writer = Writer()
    writer.number(len(plan.codebooks))
    for codebook in plan.codebooks:
        writer.number(codebook.dtype.itemsize)
        writer.number(len(codebook))
        writer.raw(codebook.astype(codebook.dtype.newbyteorder("<")).tobytes())
    writer.number(len(plan.pieces))
    for piece in plan.pieces:
        _write_piece(writer, piece)
    return writer.content()


def _write_piece(writer: Writer, piece: Piece) -> None:
    marks, values = piece.marks, piece.values
    writer.number(piece.literal)
    writer.number(piece.count)
    writer.number(piece.item_bytes)
    writer.number(
        (_MARKED if marks else 0)
        | (_PLANES if values.codebook is None else 0)
        | (_BACKGROUND if marks and marks.background else 0)
    )
    if marks is not None:
        if marks.background:
            writer.raw(marks.background.to_bytes(piece.item_bytes, "little"))
        writer.number(marks.rows)
        for classes in (marks.row_classes, marks.column_classes):
            writer.number(1 if classes is None else len(classes.frequencies))
            if classes is not None:
                _write_table(writer, classes)
        for ones, gaps in marks.cells:
            writer.number(ones)
            if ones:
                writer.number(gaps)
    if values.codebook is not None:
        writer.number(values.codebook)
    for table in values.tables:
        _write_table(writer, table)


def _write_table(writer: Writer, table: Table | None) -> None:
    """Write a table whose number of symbols the reader knows; bits of MOST_BITS + 1 stand for no table."""
    writer.number(MOST_BITS + 1 if table is None else table.bits)
    for share in [] if table is None else table.frequencies.tolist():
        writer.number(share)


def read_plan(content: bytes, decoded_bytes: int) -> Plan:
    """Return the plan that `write_plan` wrote.

    Args:
        content: the fields.
        decoded_bytes: what literals and arrays make together; nothing may be longer.

    Raises:
        CodedError: the fields are cut or contradict one another.
    """
    reader = Reader(content)
    codebooks = tuple(_read_codebook(reader) for _ in range(reader.number(MOST_PARTS)))
    pieces, left, cells = list[Piece](), decoded_bytes, 0
    for _ in range(reader.number(MOST_PARTS)):
        piece = _read_piece(reader, codebooks, left)
        left -= piece.literal + piece.count * piece.item_bytes
        cells += len(piece.marks.cells) if piece.marks is not None else 0
        if left < 0 or cells > MOST_PARTS:
            raise CodedError("its pieces are more than its length")
        pieces.append(piece)
    reader.finish()
    return Plan(codebooks, tuple(pieces))


def _read_codebook(reader: Reader) -> Array:
    item = _read_item_bytes(reader)
    count = reader.number(MOST_ENTRIES)
    return np.frombuffer(reader.raw(count * item), dtype=f"<u{item}")


def _read_item_bytes(reader: Reader) -> int:
    item = reader.number(8)
    if item not in {1, 2, 4, 8}:
        raise CodedError(f"its description holds items of {item} bytes")
    return item


def _read_piece(reader: Reader, codebooks: tuple[Array, ...], left: int) -> Piece:
    literal, count = reader.number(left), reader.number(left)
    item, mode = _read_item_bytes(reader), reader.number(_MARKED | _PLANES | _BACKGROUND)
    marks = None
    if mode & _MARKED:
        marks = _read_marks(reader, count, item if mode & _BACKGROUND else 0)
    if mode & _PLANES:
        tables = tuple(_read_table(reader, 256) for _ in range(item))
        return Piece(literal, count, item, Values(tables), marks)
    number = reader.number(max(len(codebooks) - 1, 0))
    if not codebooks or codebooks[number].dtype.itemsize != item:
        raise CodedError("its description names a codebook that is not there")
    table = _read_table(reader, len(codebooks[number]))
    if table is None:
        raise CodedError("its description lacks the table of a codebook")
    return Piece(literal, count, item, Values((table,), number), marks)


def _read_marks(reader: Reader, count: int, background_bytes: int) -> Marks:
    background = int.from_bytes(reader.raw(background_bytes), "little")
    rows = reader.number(count)
    if not rows or count % rows:
        raise CodedError("its description holds a matrix without whole rows")
    classes, numbers = list[Table | None](), list[int]()
    for length in (rows, count // rows):
        number = reader.number(MOST_CLASSES)
        table = _read_table(reader, number) if number > 1 else None
        if not number or (number > 1 and (table is None or length > LONGEST_CLASSED)):
            raise CodedError("its description holds classes of no meaning")
        classes.append(table)
        numbers.append(number)
    cells, left = list[tuple[int, int]](), count
    for _ in range(numbers[0] * numbers[1]):
        ones = reader.number(left)
        # A long gap passes over at least one item.
        gaps = reader.number(left - ones) if ones else 0
        left -= ones + gaps
        cells.append((ones, gaps))
    return Marks(background, rows, classes[0], classes[1], tuple(cells))


def _read_table(reader: Reader, symbols: int) -> Table | None:
    bits = reader.number(MOST_BITS + 1)
    if bits > MOST_BITS:
        return None
    return table_of(bits, [reader.number(1 << bits) for _ in range(symbols)])
