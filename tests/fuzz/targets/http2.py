"""A connection of HTTP/2: what a client sends, as bytes after the preface or as frames that are well cut.

The first byte says which. In the second form the input also says what the server does meanwhile.
"""

from hpack import Encoder

from flyweight.server.wire.connection import Connection
from flyweight.server.wire.frames import ErrorCode, Kind
from flyweight.server.wire.hpack import Block
from flyweight.server.wire.streams import Stream
from tests.fuzz.choices import Choices
from tests.server.wire.framing import Call, Form, usual, written
from tests.server.wire.watcher import Watcher

BYTES, FRAMES = b"\x00", b"\x01"
_NUMBERS = (0, 1, 3, 5, 7, 9, 2, 15, 101, 0x7FFFFFFF, 0x80000001)
_CREDITS = (1, 0, 10, 1 << 16, (1 << 31) - 1, 1 << 31)
_SETTINGS = (
    (4, 0),
    (4, 100),
    (4, 65_535),
    (4, (1 << 31) - 1),
    (4, 1 << 31),
    (5, 16_384),
    (5, 65_536),
    (5, (1 << 24) - 1),
    (5, 1),
    (1, 0),
    (1, 1 << 20),
    (2, 0),
    (2, 1),
    (2, 2),
    (3, 0),
    (6, 1),
    (99, 7),
)
_BLOCK = Encoder().encode(usual("/s/M"))
_TRAILERS = b"\x00\x01x\x011"


class _Reader:
    """Takes everything, and does something about some of it."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    def on_open(self, connection: Connection, stream: Stream, block: Block) -> None:
        if self._choices.flag():
            connection.send_headers(stream, b"\x88")
        if self._choices.number(7) == 7:
            connection.reset(stream.number, ErrorCode.CANCEL)

    def on_data(self, connection: Connection, stream: Stream, payload: bytes) -> None:
        if self._choices.number(3) != 3:
            connection.give_back(stream, len(payload))
        if self._choices.number(7) == 7:
            connection.send_data(stream, payload)

    def on_end(self, connection: Connection, stream: Stream) -> None:
        _answer(connection, stream, self._choices)


def _answer(connection: Connection, stream: Stream, choices: Choices) -> None:
    way, size = choices.number(4), choices.one_of((0, 5, 16_384, 70_000, 300_000))
    if way == 0:
        connection.answer(stream, b"\x88", bytes(size), b"\x89")
    elif way == 1:
        connection.send_data(stream, bytes(size), lambda: connection.send_trailers(stream, b"\x89"))
    elif way == 2:
        connection.send_trailers(stream, b"\x89")
    elif way == 3:
        connection.send_data(stream, bytes(size))


def check(data: bytes) -> None:
    """Take what a client sent; whatever else than what `Watcher` allows is a bug."""
    choices = Choices(data[1:])
    if data[:1] == BYTES:
        watcher = Watcher(_Reader(Choices(b"")))
        while octets := choices.bytes(1 + len(data) % 1000):
            watcher.give(octets)
        return
    watcher = Watcher(_Reader(choices))
    for _ in range(200):
        if choices.is_used_up or watcher.connection.is_closing:
            return
        if choices.number(7) == 7:
            watcher.act(lambda connection: _do_something(connection, choices))
        else:
            watcher.give_frame(*_frame(choices))


def _do_something(connection: Connection, choices: Choices) -> None:
    streams = [*connection.streams.values()]
    what = choices.number(3)
    if what == 0:
        connection.drain()
    elif what == 1:
        connection.ping()
    elif streams and what == 2:
        _answer(connection, choices.one_of(streams), choices)
    elif streams:
        connection.reset(choices.one_of(streams).number, ErrorCode.CANCEL)


def _frame(choices: Choices) -> tuple[int, int, int, bytes]:
    kind = choices.one_of((1, 0, 8, 3, 4, 9, 2, 6, 7, 5, 10, 255))
    flags = choices.one_of((0x4, 0x5, 0x1, 0x0, 0x9, 0x2D, 0xFF, 0x8))
    number = choices.one_of(_NUMBERS)
    if choices.number(7) == 7:
        return kind, flags, number, choices.bytes(choices.number(30))
    return kind, flags, number, _payload(kind, flags, choices)


def _payload(kind: int, flags: int, choices: Choices) -> bytes:
    if kind in {Kind.HEADERS, Kind.CONTINUATION}:
        block = choices.one_of((_BLOCK, _TRAILERS, b"", _BLOCK[:20], _BLOCK[20:]))
        before = bytes((choices.number(9),)) if flags & 0x8 else b""
        return before + (bytes(5) if flags & 0x20 else b"") + block + bytes(before[0] if before else 0)
    if kind == Kind.DATA:
        return bytes(choices.one_of((0, 1, 100, 16_384)))
    if kind == Kind.WINDOW_UPDATE:
        return choices.one_of(_CREDITS).to_bytes(4, "big")
    if kind == Kind.SETTINGS:
        pairs = [choices.one_of(_SETTINGS) for _ in range(choices.number(3))]
        return b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    return bytes({Kind.RST_STREAM: 4, Kind.PRIORITY: 5}.get(kind, 8))


def seeds() -> list[bytes]:
    """Return what clients send."""
    call = Call(usual("/s/M"), b"\0\0\0\0\5hello")
    calls = [written([call], [form]) for form in (Form(), Form((9,), (3,), 5, 7, True, True))]
    updates = b"\0\0\4\x08\0\0\0\0\0\0\1\0\0" + b"\0\0\6\4\0\0\0\0\0\0\4\0\0\0\7"
    frames = [bytes(range(n, 250, 3)) for n in range(3)]
    # HEADERS on 1 with END_STREAM, an answer of 70,000 bytes, then windows.
    frames.append(bytes((0, 0, 1, 1, 0, 0, 0, 0, 3)) + bytes((0, 2, 0, 0, 0, 3)) * 9)
    return [*(BYTES + octets + updates for octets in calls), *(FRAMES + octets for octets in frames)]
