"""The top-level fields of a protobuf message, found without reading what is in them.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from typing import Final, NamedTuple

from flyweight.server.rpc.call import Body

_VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES: Final = 10
# A request has a field for its name and each of its tensors; one with more is left to the library, which
# reads millions of fields in the time in which this reads thousands.
_MOST_FIELDS: Final = 64


class Field(NamedTuple):
    """Where a field lies: its tag from `began` on, what it holds from `start` to `end`."""

    number: int
    wire_type: int
    began: int
    start: int
    end: int


def fields_of(body: Body) -> list[Field] | None:
    """Return a message's fields in order; None if it is no message, or has too many of them."""
    fields: list[Field] = []
    at, end = 0, len(body)
    try:
        while at < end:
            began = at
            tag, at = _read_varint(body, at)
            start, wire_type = at, tag & 0x7
            if wire_type == BYTES:
                length, start = _read_varint(body, at)
                at = start + length
            elif wire_type == _VARINT:
                _, at = _read_varint(body, at)
            elif wire_type in {_FIXED64, _FIXED32}:
                at += 8 if wire_type == _FIXED64 else 4
            else:
                return None
            if at > end or len(fields) == _MOST_FIELDS:
                return None
            fields.append(Field(tag >> 3, wire_type, began, start, at))
    except IndexError:
        return None
    return fields


def _read_varint(body: Body, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first; one that does not end here is an IndexError."""
    value = 0
    for shift in range(0, 7 * _MOST_VARINT_BYTES, 7):
        octet = body[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise IndexError


def varint(value: int) -> bytes:
    """Write a number of seven bits a byte, the lowest first."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(0x80 | value & 0x7F)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def tag_of(number: int) -> bytes:
    """Write the tag of a field that holds bytes."""
    return varint(number << 3 | BYTES)
