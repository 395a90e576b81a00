"""Header blocks of a connection (RFC 7541), one after another: ours against the hpack package's reading.

Each block has its length before it. What theirs reads, ours reads as the same, or refuses for an integer of
more bytes than anybody writes; what theirs refuses ends the comparison.
"""

from itertools import pairwise

from hpack import Decoder as TheirDecoder
from hpack import Encoder, HPACKError

from flyweight.server.wire.frames import ConnectionFault, ErrorCode
from flyweight.server.wire.hpack import DEFAULT_TABLE_BYTES, Decoder
from tests.fuzz.choices import Choices

# Beyond any input's: what is left out for its size is another matter.
_MOST_BYTES = 1 << 24
_ENTRY_BYTES = 32


def check(data: bytes) -> None:
    """Read blocks; anything but a ConnectionFault, or another meaning than theirs, is a bug."""
    choices = Choices(data)
    ours, theirs = Decoder(_MOST_BYTES), TheirDecoder(max_header_list_size=_MOST_BYTES)
    theirs.max_allowed_table_size = DEFAULT_TABLE_BYTES
    while not choices.is_used_up:
        block = choices.bytes(choices.number(255))
        try:
            expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except (HPACKError, UnicodeDecodeError):
            expected = None
        try:
            found = ours.decode(block)
        except ConnectionFault as fault:
            assert fault.code is ErrorCode.COMPRESSION_ERROR  # noqa: PT017 -- not a test of raising
            assert expected is None or _is_stricter(block), "theirs reads it"
            return
        if expected is None:
            # A connection that one of them ends is over for both.
            return
        assert [*found.pairs] == expected
        assert found.size == sum(len(name) + len(value) + _ENTRY_BYTES for name, value in expected)
        assert ours._table_bytes <= ours._table_limit <= DEFAULT_TABLE_BYTES
        again = ours._known.get(block)
        assert again is None or again is found


def _is_stricter(block: bytes) -> bool:
    """Whether a block has an integer of so many bytes that we stop reading (section 7.4 allows limits)."""
    runs = (first & second & 0x80 for first, second in pairwise(block))
    return sum(1 for run in runs if run) >= 4


def seeds() -> list[bytes]:
    """Return blocks that encoders write."""
    found = []
    for is_coded in (False, True):
        encoder = Encoder()
        octets = b""
        for number in range(3):
            if number == 2:
                encoder.header_table_size = 100
            block = encoder.encode(
                [(":method", "POST"), (":path", f"/s/M{number}"), ("x-id", "7" * 9), ("te", "trailers")],
                huffman=is_coded,
            )
            octets += bytes((len(block),)) + block
        found.append(octets)
    # An integer in four bytes, a table of nothing, an entry that is too large, one named by index alone.
    return [
        *found,
        b"\x05\x7f\x80\x80\x80\x00",
        b"\x01\x20",
        b"\x03\x3f\xe1\x1f",
        b"\x04\x40\x01a\x00\x01\xbe",
    ]
