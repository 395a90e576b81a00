"""Where the weights lie in the bytes of an ONNX file, found without the package onnx.

A ModelProto is walked by its wire format (protobuf.dev, "Encoding"): down the fields that lead to tensors, to
the fields of a tensor that are plain arrays. Everything else, every length in it too, is literal bytes, so a
decoder only has to put literals and arrays one after the other. Bytes that are no ModelProto have no arrays.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

# Field numbers of onnx.proto3, fixed for ever as they are the format.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _SPARSE, _FUNCTION, _TENSOR = range(7)
_CHILDREN: Final[Mapping[int, Mapping[int, int]]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE},
}
_DIMS, _DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA = 1, 2, 4, 9, 10
# Bytes of an element by TensorProto.DataType; 4-bit types and what comes later are taken as bytes.
_ITEM_BYTES: Final = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 8, 16: 2}
# Graphs in attributes of nodes of graphs; nobody nests deeper, and the walk is recursive.
_DEEPEST: Final = 64

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Payload:
    """An array in the file.

    Attributes:
        offset: of its first byte.
        length: in bytes.
        item_bytes: of one element: 1, 2, 4 or 8.
        shape: of the tensor; empty where it does not fit the length.
    """

    offset: int
    length: int
    item_bytes: int
    shape: tuple[int, ...]


class _MalformedError(Exception):
    """The bytes are no protobuf message of the kind looked for."""


def find_payloads(content: bytes) -> list[Payload]:
    """Return the arrays of an ONNX file in the order of their place; none if it is not one."""
    try:
        return sorted(_walk(content, _MODEL, (0, len(content)), 0), key=lambda payload: payload.offset)
    except _MalformedError:
        return []


def _walk(content: bytes, kind: int, span: tuple[int, int], depth: int) -> Iterator[Payload]:
    if kind == _TENSOR:
        yield from _tensor(content, span)
        return
    if depth > _DEEPEST:
        raise _MalformedError
    children = _CHILDREN[kind]
    for field, wire, start, end in _fields(content, span):
        if wire == _BYTES and field in children:
            yield from _walk(content, children[field], (start, end), depth + 1)


def _tensor(content: bytes, span: tuple[int, int]) -> Iterator[Payload]:
    dims, data_type, arrays = list[int](), 0, list[tuple[int, int, int]]()
    for field, wire, start, end in _fields(content, span):
        if field == _DIMS:
            place = start
            while place < end:
                value, place = _varint(content, place, end)
                dims.append(value)
        elif field == _DATA_TYPE and wire == _VARINT:
            data_type, _ = _varint(content, start, end)
        elif field in {_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA} and wire == _BYTES and end > start:
            arrays.append((field, start, end))
    for field, start, end in arrays:
        item = {_FLOAT_DATA: 4, _DOUBLE_DATA: 8}.get(field, _ITEM_BYTES.get(data_type, 1))
        item = item if (end - start) % item == 0 else 1
        shape = tuple(dims) if math.prod(dims) * item == end - start else ()
        yield Payload(start, end - start, item, shape)


def _fields(content: bytes, span: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, start and end of the value of each field of a message."""
    place, end = span
    while place < end:
        tag, place = _varint(content, place, end)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, after = _varint(content, place, end)
        elif wire == _BYTES:
            length, place = _varint(content, place, end)
            after = place + length
        elif wire in {_FIXED64, _FIXED32}:
            after = place + (8 if wire == _FIXED64 else 4)
        else:
            raise _MalformedError
        if after > end or not field:
            raise _MalformedError
        yield field, wire, place, after
        place = after


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while place < end and shift < 70:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise _MalformedError
