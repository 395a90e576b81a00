"""Tables of plain text: aligned columns, readable in a terminal and in a log."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> str:
    """Return rows under a header, columns two spaces apart; those named in `right` are flush right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    flush = [name in right for name in header]
    return "\n".join(_line(row, widths, flush) for row in [header, *rows])


def _line(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, flush, strict=True)
    )
    return "  ".join(padded).rstrip()
