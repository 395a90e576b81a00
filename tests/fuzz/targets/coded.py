"""model.onnx.fw: coded model files.

The first byte says whether the rest is a whole file, or the plan and what follows it in a file whose header
fits them, so that mutations reach what lies behind digest and packing.
"""

import struct

import numpy as np

from flyweight.protos.coded import CodedError, Limits, decode, encode
from flyweight.protos.coded.packing import unpack

_HEADER = struct.Struct("<7sBBBQ32sIQIQQ")
_INSIDE = b"\x01"
# A file of a few kilobytes may say that it decodes to 16 MiB, which is checked elsewhere, and takes its time.
_LIMITS = Limits(decoded_bytes=1 << 20)


def check(data: bytes) -> None:
    """Decode; anything but a CodedError is a bug."""
    coded = _dressed(data[1:]) if data[:1] == _INSIDE else data[1:]
    try:
        decode(coded, _LIMITS)
    except CodedError:
        return


def _dressed(body: bytes) -> bytes:
    """Return a file of a decoded length, literals, plan, symbols and stored bytes, none of them packed."""
    if len(body) < 8:
        return body
    decoded, literals, plan, symbols = struct.unpack_from("<HHHH", body)
    rest = body[8:]
    plan, literals = min(plan, len(rest)), min(literals, len(rest))
    header = _HEADER.pack(
        b"\x89FW\r\n\x1a\n", 1, 0, 0, decoded, bytes(32), plan, literals, plan, literals, symbols
    )
    return header + rest


def _undressed(coded: bytes) -> bytes:
    _, _, plan_packing, literals_packing, decoded, _, *lengths = _HEADER.unpack_from(coded)
    plan_bytes, literal_bytes, packed_plan, packed_literals, symbols = lengths
    place = _HEADER.size
    plan = unpack(plan_packing, coded[place : place + packed_plan], plan_bytes)
    place += packed_plan
    literals = unpack(literals_packing, coded[place : place + packed_literals], literal_bytes)
    place += packed_literals
    return struct.pack("<HHHH", decoded, literal_bytes, plan_bytes, symbols) + plan + literals + coded[place:]


def _model(array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bytes:
    """Return an ONNX file with one initializer, by the wire format: fields 7 (graph), 5, 1, 2, 9."""
    dims = b"".join(b"\x08" + _varint(length) for length in array.shape)
    tensor = dims + b"\x10\x01" + _delimited(9, array.tobytes())
    return _delimited(7, _delimited(5, tensor))


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def seeds() -> list[bytes]:
    """Return coded networks that are pruned, shared and neither, and text."""
    random = np.random.default_rng(0)
    values = random.normal(size=7).astype(np.float32)[random.integers(0, 7, (40, 30))]
    pruned = np.where(random.random((40, 30)) < 0.1, values, np.float32(0))
    plain = random.normal(size=(20, 10)).astype(np.float32)
    coded = [encode(_model(array)) for array in (values, pruned, plain)] + [encode(b"no model")]
    return [*(b"\0" + content for content in coded), *(_INSIDE + _undressed(content) for content in coded)]
