"""A coded file: the bytes of an ONNX file with its arrays entropy-coded, bit for bit the same when decoded.

The sections are, one after the other:

    header    magic, version, packings, length and SHA-256 of the decoded file, length of each section
    plan      how the arrays are coded (plan.py), packed
    literals  every byte of the file that is in no array, packed
    symbols   the entropy coder's states and words (rans.py)
    stored    bytes of arrays that do not compress
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.protos.coded.decoding import Stored, decode_piece
from flyweight.protos.coded.encoding import encode_arrays
from flyweight.protos.coded.errors import CodedError
from flyweight.protos.coded.limits import LARGEST_PLAN_BYTES, Limits
from flyweight.protos.coded.packing import pack, unpack
from flyweight.protos.coded.payloads import find_payloads
from flyweight.protos.coded.plan import Plan, read_plan, write_plan
from flyweight.protos.coded.rans import Decoder, encode_runs

# As PNG's: a byte that is no text, and line ends that a text-mode copy would change.
_MAGIC: Final = b"\x89FW\r\n\x1a\n"
VERSION: Final = 1
# Magic, version, packing of the plan and of the literals, decoded length, SHA-256,
# lengths of plan (unpacked), literals (unpacked), plan, literals, symbols.
_HEADER: Final = struct.Struct("<7sBBBQ32sIQIQQ")
_ADVICE: Final = "encode or publish it again"


@dataclass(frozen=True, slots=True)
class _Header:
    plan_packing: int
    literals_packing: int
    decoded_bytes: int
    sha256: bytes
    plan_bytes: int
    literal_bytes: int
    packed_plan_bytes: int
    packed_literal_bytes: int
    symbol_bytes: int


def encode(content: bytes) -> bytes:
    """Return the coded form of an ONNX file's bytes; any other bytes are packed as they are.

    Raises:
        CodedError: they are too many for the format, or this Python lacks a compressor.
    """
    Limits().check(len(content), len(content))
    payloads = find_payloads(content)
    arrays = encode_arrays(content, payloads)
    plan = write_plan(arrays.plan)
    literals, place = bytearray(), 0
    for piece in arrays.plan.pieces:
        literals += content[place : place + piece.literal]
        place += piece.literal + piece.count * piece.item_bytes
    literals += content[place:]
    plan_packing, packed_plan = pack(plan)
    literals_packing, packed_literals = pack(bytes(literals))
    symbols = encode_runs(arrays.runs)
    header = _HEADER.pack(
        _MAGIC,
        VERSION,
        plan_packing,
        literals_packing,
        len(content),
        hashlib.sha256(content).digest(),
        len(plan),
        len(literals),
        len(packed_plan),
        len(packed_literals),
        len(symbols),
    )
    return b"".join([header, packed_plan, packed_literals, symbols, arrays.stored])


def decode(coded: bytes, limits: Limits | None = None) -> bytearray:
    """Return the bytes that were encoded.

    Everything a file says of itself is checked before memory is taken for it, and the result against its
    digest. Beside the file and the result, about 50 MB are needed.

    Args:
        coded: a whole coded file.
        limits: what it may decode to.

    Raises:
        CodedError: it is not a coded file, is cut or garbled, is of a later version, or exceeds the limits;
            the text says in half a sentence what is wrong with "it".
    """
    header = _read_header(coded)
    (limits or Limits()).check(header.decoded_bytes, len(coded))
    sections, place = list[memoryview](), _HEADER.size
    for length in (header.packed_plan_bytes, header.packed_literal_bytes, header.symbol_bytes):
        sections.append(memoryview(coded)[place : place + length])
        place += length
    if place > len(coded):
        raise CodedError("it is cut")
    if header.plan_bytes > LARGEST_PLAN_BYTES or header.literal_bytes > header.decoded_bytes:
        raise CodedError("its sections are longer than it")
    packed_plan = unpack(header.plan_packing, bytes(sections[0]), header.plan_bytes)
    plan = read_plan(packed_plan, header.decoded_bytes)
    arrays = sum(piece.count * piece.item_bytes for piece in plan.pieces)
    if arrays + header.literal_bytes != header.decoded_bytes:
        raise CodedError("its pieces do not add up to its length")
    literals = unpack(header.literals_packing, bytes(sections[1]), header.literal_bytes)
    decoded = _join(header, plan, literals, sections[2], Stored(memoryview(coded)[place:]))
    if hashlib.sha256(decoded).digest() != header.sha256:
        raise CodedError("what it decodes to has another digest than it says")
    return decoded


def _read_header(coded: bytes) -> _Header:
    if coded[: len(_MAGIC)] != _MAGIC:
        raise CodedError("it is not a coded file")
    if len(coded) < _HEADER.size:
        raise CodedError("it is cut")
    _, version, *fields = _HEADER.unpack_from(coded)
    if version != VERSION:
        raise CodedError(f"it is of version {version}, and this flyweight reads {VERSION}")
    return _Header(*fields)


def _join(header: _Header, plan: Plan, literals: bytes, coded: memoryview, stored: Stored) -> bytearray:
    """Put literals and decoded arrays one after the other."""
    symbols = Decoder(coded, sum(piece.symbols for piece in plan.pieces))
    decoded = bytearray(header.decoded_bytes)
    place = taken = 0
    with memoryview(decoded) as view:
        for piece in plan.pieces:
            view[place : place + piece.literal] = literals[taken : taken + piece.literal]
            taken, place = taken + piece.literal, place + piece.literal
            end = place + piece.count * piece.item_bytes
            decode_piece(piece, plan, symbols, stored, view[place:end])
            place = end
        view[place:] = literals[taken:]
    symbols.finish()
    stored.finish()
    return decoded


def decode_file(path: Path, limits: Limits | None = None) -> bytearray:
    """Return what the coded file at `path` decodes to.

    Raises:
        CodedError: it cannot be read or decoded; one sentence that names it.
    """
    try:
        return decode(_read(path, limits or Limits()), limits)
    except OSError as error:
        raise CodedError(f"{path} cannot be read ({error.strerror}); check it.") from error
    except CodedError as error:
        raise CodedError(f"{path} cannot be decoded: {error}; {_ADVICE}.") from error


def _read(path: Path, limits: Limits) -> bytes:
    size = path.stat().st_size
    if size > limits.decoded_bytes:
        raise CodedError(f"it has {size} bytes, more than the {limits.decoded_bytes} that are allowed")
    return path.read_bytes()
