"""Header blocks: what is written needs no state, and what gRPC's core writes is read."""

import pytest

from benchmarks.serving.hpack import Decoder, UnreadableHeadersError, encode

pytestmark = pytest.mark.source


def test_what_was_written_is_read() -> None:
    headers = [(":path", "/inference.GRPCInferenceService/ModelInfer"), ("te", "trailers"), ("x", "y" * 300)]
    assert Decoder().decode(encode(headers)) == headers


def test_an_indexed_field_of_the_static_table() -> None:
    assert Decoder().decode(b"\x88") == [(":status", "200")]


def test_a_literal_with_indexing_is_remembered() -> None:
    """RFC 7541, C.2.1: the literal has index 62 afterwards."""
    decoder = Decoder()
    literal = bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")
    assert decoder.decode(literal) == [("custom-key", "custom-header")]
    assert decoder.decode(b"\xbe") == [("custom-key", "custom-header")]


def test_what_does_not_fit_the_table_is_forgotten() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    with pytest.raises(UnreadableHeadersError):
        decoder.decode(b"\x20\xbe")


@pytest.mark.parametrize("block", [b"\x40", b"\x00\x05ab", b"\xff", b"\x00\x01a\x7f\xff"])
def test_a_block_that_ends_early_is_refused(block: bytes) -> None:
    with pytest.raises(UnreadableHeadersError):
        Decoder().decode(block)


def test_huffman_codes_are_refused_by_name() -> None:
    with pytest.raises(UnreadableHeadersError, match="Huffman"):
        Decoder().decode(b"\x00\x81\x00\x00")
