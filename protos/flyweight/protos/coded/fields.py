"""Whole numbers and bytes in a row: the notation of a coded file's plan.

Numbers are in base 128, least significant digit first, the top bit of a byte saying that another follows
(protobuf's encoding of varints).
"""

from typing import Final

from flyweight.protos.coded.errors import CodedError

# 2**63 and more is no length of anything.
_MOST_DIGITS: Final = 9


class Writer:
    """Appends fields."""

    def __init__(self) -> None:
        self._content = bytearray()

    def number(self, value: int) -> None:
        """Append a number of at least 0."""
        while value >= 0x80:
            self._content.append(value & 0x7F | 0x80)
            value >>= 7
        self._content.append(value)

    def raw(self, content: bytes) -> None:
        """Append bytes whose length the reader knows."""
        self._content += content

    def content(self) -> bytes:
        """Return everything written."""
        return bytes(self._content)


class Reader:
    """Reads fields; every mistake of the bytes is a CodedError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def number(self, most: int) -> int:
        """Return the next number.

        Raises:
            CodedError: there is none, or it is above `most`.
        """
        value = 0
        for digit in range(_MOST_DIGITS):
            if self._place >= len(self._content):
                raise CodedError("its description is cut")
            byte = self._content[self._place]
            self._place += 1
            value |= (byte & 0x7F) << 7 * digit
            if byte < 0x80:
                break
        else:
            value = most + 1
        if value > most:
            raise CodedError(f"its description holds {value} where at most {most} makes sense")
        return value

    def raw(self, length: int) -> bytes:
        """Return the next `length` bytes.

        Raises:
            CodedError: there are fewer.
        """
        content = self._content[self._place : self._place + length]
        if len(content) < length:
            raise CodedError("its description is cut")
        self._place += length
        return content

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            CodedError: something is.
        """
        if self._place != len(self._content):
            raise CodedError("its description goes on after its end")
