"""The messages of a call: what comes out is the same however their bytes are cut, and only so much is kept.

The first two bytes say how the call packs its messages and how the rest is cut.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from random import Random

from flyweight.server.errors import Code
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.connection import Connection, Limits
from flyweight.server.wire.frames import PREFACE, Kind, frame, settings
from flyweight.server.wire.heads import head_of
from flyweight.server.wire.hpack import Block, encode
from flyweight.server.wire.streams import Stream
from tests.fuzz.engine import LONGEST_INPUT_BYTES
from tests.server.wire.framing import message, usual

ENCODINGS = ("", "identity", "gzip", "deflate")
MOST_MESSAGE_BYTES = 500


class _Home:
    """One connection with one call."""

    most_message_bytes = MOST_MESSAGE_BYTES
    packs = False

    def __init__(self, encoding: str) -> None:
        self.calls: list[WireCall] = []
        self.connection = Connection(Limits(), self._accept)
        fields = [*usual("/s/M"), *([("grpc-encoding", encoding)] if encoding else [])]
        block = encode([(name.encode(), value.encode()) for name, value in fields])
        self.connection.receive(PREFACE + settings({}) + frame(Kind.HEADERS, 4, 1, block))

    def _accept(self, stream: Stream, block: Block) -> None:
        stream.listener = WireCall(self, self.connection, stream, head_of(block, 1 << 14))
        self.calls.append(stream.listener)

    def do(self, job: Callable[[], None]) -> None:
        job()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


def _taken(encoding: str, parts: Sequence[bytes]) -> tuple[list[bytes | None], Code]:
    """Return the messages that a call reads, None being their end, and what the call came to."""
    home, found = _Home(encoding), list[bytes | None]()
    (call,) = home.calls

    def take(body: bytes | memoryview | None) -> None:
        found.append(None if body is None else bytes(body))
        if body is not None:
            call.read(take)

    call.read(take)
    for part in parts:
        home.connection.receive(frame(Kind.DATA, 0, 1, part))
    home.connection.receive(frame(Kind.DATA, 1, 1))
    assert not home.connection.is_closing
    if call.is_active():
        call.end(None)
    assert not home.connection.streams
    return found, call.code


def check(data: bytes) -> None:
    """Send messages whole and in pieces; a difference is a bug, and so is anything raised."""
    if len(data) < 2:
        return
    encoding, octets = ENCODINGS[data[0] % len(ENCODINGS)], data[2:]
    whole = _taken(encoding, [octets])
    assert all(len(body or b"") <= MOST_MESSAGE_BYTES for body in whole[0])
    random = Random(data[1])
    places = sorted(random.randrange(len(octets) + 1) for _ in range(random.randrange(1, 30)))
    parts = [octets[begin:end] for begin, end in zip([0, *places], [*places, len(octets)], strict=True)]
    assert _taken(encoding, parts) == whole
    assert _taken(encoding, [octets[at : at + 1] for at in range(len(octets))][:LONGEST_INPUT_BYTES]) == whole


def seeds() -> list[bytes]:
    """Return what callers send."""
    plain = message(b"one") + message(b"") + message(b"three" * 50)
    found = [
        b"\0\0" + plain,
        b"\1\1" + plain,
        b"\0\2" + plain + message(b"x" * (MOST_MESSAGE_BYTES + 1)),
        b"\0\3" + plain[:-1],
    ]
    for number, pack in ((2, gzip.compress), (3, zlib.compress)):
        packed = message(pack(b"hello" * 9), 1) + message(b"plain") + message(pack(bytes(501)), 1)
        found += [bytes((number, 7)) + packed, bytes((number, 0)) + message(pack(b"hello")[:-2], 1)]
    return found
