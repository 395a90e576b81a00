"""Large requests: a ModelInferRequest whose tensors stay where they came, instead of being copied twice.

The protobuf library copies `raw_input_contents` as it parses them and again as they are asked for: 0.2 ms of
a request with 600 KB. So they are cut out first, and the rest is parsed. Wire format:
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import Buffer
from flyweight.server.rpc.call import Body
from flyweight.server.rpc.messages import parse

# Cutting takes 5 us, in which 64 KB are copied.
_LARGE_BYTES: Final = 64 << 10
# A request has a field for its name and each of its tensors; one with more is left to the library, which
# reads millions of fields in the time in which this reads thousands.
_MOST_FIELDS: Final = 64
_RAW: Final = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES: Final = 10
# The widest element of a tensor; what lies across its steps is copied once, for not every processor reads it.
_ALIGNED: Final = 8


def read_request(body: Body) -> tuple[ModelInferRequest, Sequence[Buffer]]:
    """Return a request and its raw contents, which may be views of `body` and then are not in the request.

    Raises:
        InvalidRequest: the bytes are no ModelInferRequest.
    """
    parts = _cut(body) if len(body) >= _LARGE_BYTES else None
    if parts is None:
        message: ModelInferRequest = parse(ModelInferRequest, body)
        # A slice of a repeated field is a list, made in half the time that iterating takes.
        return message, message.raw_input_contents[:]
    rest, raw = parts
    return parse(ModelInferRequest, rest), raw


def _cut(body: Body) -> tuple[bytes, list[Buffer]] | None:
    """Return the message without its raw contents, and those; None if that cannot be told apart here."""
    view, rest, raw = memoryview(body), list[memoryview](), list[Buffer]()
    base, at, end = np.frombuffer(body, np.uint8).ctypes.data, 0, len(body)
    try:
        for _ in range(_MOST_FIELDS):
            if at == end:
                return b"".join(rest), raw
            began = at
            tag, at = _varint(body, at)
            number, wire_type = tag >> 3, tag & 0x7
            if wire_type == _BYTES:
                length, at = _varint(body, at)
                at += length
                if at > end:
                    return None
                if number == _RAW:
                    start = at - length
                    raw.append(view[start:at] if (base + start) % _ALIGNED == 0 else bytes(view[start:at]))
                    continue
            elif wire_type == _VARINT:
                _, at = _varint(body, at)
            elif wire_type in {_FIXED64, _FIXED32}:
                at += 8 if wire_type == _FIXED64 else 4
            else:
                return None
            if number == _RAW or at > end:
                return None
            rest.append(view[began:at])
    except IndexError:
        return None
    return None


def _varint(body: Body, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first; one that does not end here is an IndexError."""
    value = 0
    for shift in range(0, 7 * _MOST_VARINT_BYTES, 7):
        octet = body[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise IndexError
