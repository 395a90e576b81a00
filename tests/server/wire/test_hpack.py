"""Header blocks, against the hpack package in both directions and against the cases that RFC 7541 names."""

from contextlib import suppress
from typing import Any

import pytest
from hpack import Decoder as TheirDecoder
from hpack import Encoder as TheirEncoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.wire.frames import ConnectionFault, ErrorCode
from flyweight.server.wire.hpack import Decoder, encode
from flyweight.server.wire.huffman import HuffmanFault
from flyweight.server.wire.huffman import decode as huffman_decode

MOST = 1 << 20
NAMES = st.sampled_from(
    [b":path", b":method", b"te", b"grpc-timeout", b"traceparent", b"x-id", b"user-agent"]
)
VALUES = st.one_of(st.sampled_from([b"POST", b"trailers", b"gzip", b"20m"]), st.binary(max_size=40))
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@given(st.lists(st.tuples(PAIRS, st.booleans(), st.sampled_from([None, 0, 64, 500, 4096])), max_size=8))
def test_it_reads_what_the_package_writes_block_after_block(blocks: Any) -> None:
    theirs, ours = TheirEncoder(), Decoder(MOST)
    for pairs, is_coded, size in blocks:
        if size is not None:
            theirs.header_table_size = size
        block = ours.decode(theirs.encode(pairs, huffman=is_coded))
        assert list(block.pairs) == pairs
        assert block.size == sum(len(name) + len(value) + 32 for name, value in pairs)


@given(PAIRS)
def test_the_package_reads_what_it_writes(pairs: list[tuple[bytes, bytes]]) -> None:
    block = encode(pairs)
    decoded = TheirDecoder().decode(block, raw=True)
    assert [(bytes(name), bytes(value)) for name, value in decoded] == pairs
    assert encode(pairs) == block, "its bytes never change"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(octets: bytes) -> None:
    decoder = Decoder(MOST)
    for _ in range(2):
        with suppress(ConnectionFault):
            decoder.decode(octets)


def test_a_block_that_comes_again_is_the_same_object() -> None:
    theirs, ours = TheirEncoder(), Decoder(MOST)
    first = ours.decode(theirs.encode([(b"x-id", b"1")]))
    block = theirs.encode([(b"x-id", b"1")])
    ours.decode(block)
    second, third = ours.decode(block), ours.decode(block)
    assert second is third
    assert second.pairs == first.pairs == ((b"x-id", b"1"),)


def test_what_an_index_means_may_change() -> None:
    ours = Decoder(MOST)
    # Two literals enter the table (RFC 7541, section 6.2.1); index 62 is the newest of it.
    ours.decode(b"\x40\x01a\x011")
    assert ours.decode(b"\xbe").pairs == ((b"a", b"1"),)
    ours.decode(b"\x40\x01b\x012")
    assert ours.decode(b"\xbe").pairs == ((b"b", b"2"),)
    assert ours.decode(b"\xbf").pairs == ((b"a", b"1"),)


def test_what_is_larger_than_the_table_empties_it() -> None:
    ours = Decoder(MOST)
    ours.decode(b"\x40\x01a\x011")
    ours.decode(b"\x40\x01b\x7f\xe1\x1f" + b"z" * 4192)
    with pytest.raises(ConnectionFault, match="an entry that is not there"):
        ours.decode(b"\xbe")


def test_a_list_beyond_the_limit_is_read_and_left_out() -> None:
    ours = Decoder(100)
    block = ours.decode(encode([(b"a", b"1" * 30), (b"b", b"2" * 30), (b"c", b"3")]))
    assert block.pairs == ((b"a", b"1" * 30),)
    assert block.size > 100


def test_a_bomb_of_indices_holds_no_more_than_the_limit() -> None:
    """A few bytes may name a large entry many times (RFC 7541, section 7.3)."""
    ours = Decoder(16 << 10)
    ours.decode(b"\x40\x01a\x7f\x80\x1e" + b"z" * (127 + 0xF00))
    block = ours.decode(b"\xbe" * 16_000)
    assert block.size > 60_000_000
    assert len(block.pairs) == 4


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"\x80", "an entry that is not there"),
        (b"\xbe", "an entry that is not there"),
        (b"\xff\xff\xff\xff\xff\xff\x01", "more than five bytes"),
        (b"\xff", "ends within"),
        (b"\x40\x05a", "longer than its block"),
        (b"\x3f\xe2\x1f", "larger than the 4096"),
        (b"\x82\x20", "after its first field"),
        (b"\x00\x81\x00\x00", "ends within a symbol"),
    ],
)
def test_what_cannot_be_read_ends_the_connection(octets: bytes, words: str) -> None:
    with pytest.raises(ConnectionFault, match=words) as caught:
        Decoder(MOST).decode(octets)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


@given(st.binary(max_size=80))
def test_strings_come_back_from_the_code(text: bytes) -> None:
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    assert huffman_decode(coded) == text


@pytest.mark.parametrize("octets", [b"\xff\xff\xff\xff", b"\xff", b"\x00", b"\x1f\xff"])
def test_padding_is_ones_and_short_and_the_end_of_string_is_never_sent(octets: bytes) -> None:
    """RFC 7541, section 5.2."""
    with pytest.raises(HuffmanFault):
        huffman_decode(octets)
