"""Bytes as decisions: what a fuzzer mutates, read as numbers, names and lists.

A structure that is built of such decisions is always well-formed on the outside, so that mutations go into
what it means; the raw form of the same thing is fuzzed beside it.
"""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Choices:
    """Reads decisions from bytes; once they are used up, every decision is the first."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    @property
    def is_used_up(self) -> bool:
        """Whether there are no more bytes to decide by."""
        return self._place >= len(self._content)

    def bytes(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        part = self._content[self._place : self._place + count]
        self._place += len(part)
        return part

    def number(self, most: int) -> int:
        """Return a number from 0 to `most`, which is below 65,536."""
        width = 1 if most < 256 else 2
        return int.from_bytes(self.bytes(width), "little") % (most + 1)

    def whole(self) -> int:
        """Return a signed number of 64 bits."""
        return int.from_bytes(self.bytes(8), "little", signed=True)

    def flag(self) -> bool:
        """Return yes or no."""
        return self.number(1) == 1

    def one_of(self, items: Sequence[Item]) -> Item:
        """Return one of some."""
        return items[self.number(len(items) - 1)]

    def text(self, most: int = 12) -> str:
        """Return a text of any characters."""
        return self.bytes(self.number(most)).decode("utf-8", "replace")
