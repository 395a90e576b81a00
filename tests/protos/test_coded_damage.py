"""What is cut, garbled or meant ill is refused by name, without taking memory for it first."""

import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.coded import CodedError, Limits, decode, encode
from flyweight.protos.coded.packing import Packing, pack, unpack

# Beside its result, which is checked first, a decoder needs this much at most; here far less.
MOST_BYTES = 48 << 20
HEADER = struct.Struct("<7sBBBQ32sIQIQQ")
FIELDS = [
    *("magic", "version", "plan_packing", "literals_packing", "decoded", "sha256"),
    *("plan", "literals", "packed_plan", "packed_literals", "symbols"),
]


def tensor(array: np.ndarray) -> bytes:
    """An ONNX file with one initializer, by the wire format: fields 7 (graph), 5 (initializer), 1, 2, 9."""
    dims = b"".join(field(1, 0) + number(length) for length in array.shape)
    content = dims + field(2, 0) + number(1) + delimited(9, array.tobytes())
    return delimited(7, delimited(5, content))


def delimited(place: int, content: bytes) -> bytes:
    return field(place, 2) + number(len(content)) + content


def field(place: int, wire: int) -> bytes:
    return number(place << 3 | wire)


def number(value: int) -> bytes:
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def weights() -> np.ndarray:
    random = np.random.default_rng(0)
    values = random.normal(size=7).astype(np.float32)[random.integers(0, 7, (100, 60))]
    mask = random.random((100, 60)) < np.linspace(0.02, 0.6, 60)
    return np.where(mask, values, np.float32(0))


CODED = encode(tensor(weights()))
PLAIN = encode(tensor(np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32)))


def changed(coded: bytes, **fields: object) -> bytes:
    """The file with other fields in its header."""
    values = dict(zip(FIELDS, HEADER.unpack_from(coded), strict=True)) | fields
    return HEADER.pack(*values.values()) + coded[HEADER.size :]


def with_plan(coded: bytes, change: Callable[[bytearray], None]) -> bytes:
    """The file with another plan, so that what lies behind its packing is reached."""
    values = dict(zip(FIELDS, HEADER.unpack_from(coded), strict=True))
    end = HEADER.size + values["packed_plan"]
    plan = bytearray(unpack(values["plan_packing"], coded[HEADER.size : end], values["plan"]))
    change(plan)
    packed = changed(coded, plan_packing=0, plan=len(plan), packed_plan=len(plan))
    return packed[: HEADER.size] + bytes(plan) + coded[end:]


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block takes more memory than a decoder of small files needs."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def decode_or_refuse(coded: bytes) -> bytes | None:
    """What a file decodes to, or None where it is refused by name; any other error is a failure."""
    try:
        return bytes(decode(coded))
    except CodedError:
        return None


def test_a_model_in_wire_format_is_coded_by_its_weights() -> None:
    assert len(CODED) < weights().nbytes / 8
    assert decode(CODED) == tensor(weights())


@given(st.sampled_from([CODED, PLAIN]), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_means_nothing(coded: bytes, place: int, flip: int) -> None:
    """It may hit an entry of a codebook that is used by nobody; never does another model come out."""
    garbled = bytearray(coded)
    garbled[place % len(garbled)] ^= flip
    with bounded():
        assert decode_or_refuse(bytes(garbled)) in {None, bytes(decode(coded))}


@given(st.sampled_from([CODED, PLAIN]), st.integers(0))
def test_a_cut_file_is_noticed(coded: bytes, length: int) -> None:
    with bounded(), pytest.raises(CodedError):
        decode(coded[: length % len(coded)])


@given(st.sampled_from([CODED, PLAIN]), st.binary(min_size=1, max_size=20))
def test_a_file_that_goes_on_is_noticed(coded: bytes, more: bytes) -> None:
    with pytest.raises(CodedError):
        decode(coded + more)


@given(
    st.sampled_from([CODED, PLAIN]),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_changed_plan_is_noticed_or_means_the_same(coded: bytes, changes: list[tuple[int, int]]) -> None:
    def change(plan: bytearray) -> None:
        for place, value in changes:
            plan[place % len(plan)] = value

    with bounded():
        assert decode_or_refuse(with_plan(coded, change)) in {None, bytes(decode(coded))}


@given(st.sampled_from([CODED, PLAIN]), st.binary(max_size=60), st.integers(0))
def test_a_plan_of_chance_is_refused(coded: bytes, content: bytes, place: int) -> None:
    def change(plan: bytearray) -> None:
        at = place % len(plan)
        plan[at : at + len(content) // 2] = content

    with bounded():
        assert decode_or_refuse(with_plan(coded, change)) in {None, bytes(decode(coded))}


@pytest.mark.parametrize("name", FIELDS[2:])
@given(value=st.integers(0, 2**64 - 1))
def test_a_lie_in_the_header_is_refused(name: str, value: int) -> None:
    bits = {"plan_packing": 8, "literals_packing": 8, "plan": 32, "packed_plan": 32}.get(name, 64)
    lie: object = bytes(32) if name == "sha256" else value % 2**bits
    if HEADER.unpack_from(CODED)[FIELDS.index(name)] == lie:
        return
    with bounded(), pytest.raises(CodedError):
        decode(changed(CODED, **{name: lie}))


def test_a_bomb_is_refused_by_its_size_before_it_is_unpacked() -> None:
    with bounded():
        with pytest.raises(CodedError, match=r"decodes to 4294967296 bytes where 2147483647 are allowed"):
            decode(changed(CODED, decoded=1 << 32))
        with pytest.raises(CodedError, match=r"says it decodes to 1000000000, over 4096 times as many"):
            decode(changed(CODED[:2000], decoded=10**9))
        with pytest.raises(CodedError, match=r"it decodes to \d+ bytes where 100 are allowed"):
            decode(CODED, Limits(decoded_bytes=100))


@pytest.mark.parametrize("packing", [Packing.ZLIB, Packing.LZMA])
def test_a_packed_bomb_gives_no_more_than_its_declared_length(packing: Packing) -> None:
    import lzma
    import zlib

    zeros = bytes(100 << 20)
    if packing is Packing.ZLIB:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = deflate.compress(zeros) + deflate.flush()
    else:
        bomb = lzma.compress(
            zeros, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
        )
    del zeros
    with bounded(), pytest.raises(CodedError, match="does not unpack to its length"):
        unpack(packing, bomb, 1000)


@pytest.mark.parametrize("content", [b"", b"x", b"abc" * 1000, bytes(range(256))])
def test_packing_takes_the_shortest_way(content: bytes) -> None:
    packing, packed = pack(content)
    assert len(packed) <= len(content)
    assert unpack(packing, packed, len(content)) == content


def test_what_is_packed_in_an_unknown_way_is_refused() -> None:
    with pytest.raises(CodedError, match="packed in way 9"):
        unpack(9, b"", 0)


def test_a_later_version_is_refused_by_its_number() -> None:
    with pytest.raises(CodedError, match="it is of version 2, and this flyweight reads 1"):
        decode(changed(CODED, version=2))


def test_a_python_without_lzma_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(CodedError, match="built without the module lzma"):
        unpack(Packing.LZMA, b"", 1)
