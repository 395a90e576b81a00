"""Looks at both ends of a connection without a socket, and asserts what has to be true of it at all times.

Section numbers are those of RFC 9113. What it counts as granted is what the client really sent, so a server
that sends more is wrong, whatever else was sent.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from flyweight.server.wire.connection import Connection, Limits
from flyweight.server.wire.frames import PREFACE, ErrorCode, Flag, Kind, Setting, frame
from flyweight.server.wire.hpack import Block
from flyweight.server.wire.incoming import MAX_FRAME_BYTES
from flyweight.server.wire.streams import Stream

MOST_STREAMS: Final = 8
LIMITS: Final = Limits(max_streams=MOST_STREAMS, max_header_bytes=1024)
_LARGEST_FRAME_BYTES: Final = 16_384
_STREAM_WINDOW: Final = 1 << 20
_CONNECTION_WINDOW: Final = 16 << 20
_MOST_WINDOW: Final = (1 << 31) - 1


class Behaviour(Protocol):
    """What the server does with what it is told of a stream."""

    def on_open(self, connection: Connection, stream: Stream, block: Block) -> None:
        """Take a stream that was opened."""
        ...

    def on_data(self, connection: Connection, stream: Stream, payload: bytes) -> None:
        """Take data."""
        ...

    def on_end(self, connection: Connection, stream: Stream) -> None:
        """Note that the client sends no more."""
        ...


class Heard:
    """The listener of a stream: data, then perhaps the end, then the close, once each."""

    def __init__(self, watcher: "Watcher", stream: Stream) -> None:
        self._watcher, self._stream = watcher, stream
        self.data_bytes = 0
        self.is_ended = self.is_closed = False
        self.code: ErrorCode | None = None

    def on_data(self, payloads: Sequence[memoryview], size: int) -> None:
        assert not self.is_ended
        assert not self.is_closed
        payload = b"".join(payloads)
        assert len(payload) == size
        self.data_bytes += size
        self._watcher.behaviour.on_data(self._watcher.connection, self._stream, payload)

    def on_end(self) -> None:
        assert not self.is_ended
        assert not self.is_closed
        self.is_ended = True
        self._watcher.behaviour.on_end(self._watcher.connection, self._stream)

    def on_close(self, code: ErrorCode | None) -> None:
        assert not self.is_closed, "told once"
        self.is_closed, self.code = True, code


class Watcher:
    """A connection, what its client granted, and what it sent."""

    def __init__(self, behaviour: Behaviour, *, greets: bool = True) -> None:
        self.behaviour = behaviour
        self.heard: dict[int, Heard] = {}
        self.goaways: list[tuple[int, ErrorCode]] = []
        # Streams that the server ended, and how: None by END_STREAM.
        self.ended: dict[int, ErrorCode | None] = {}
        self.sent_bytes: dict[int, int] = {}
        self.windows: dict[int, int] = {0: 65_535}
        self._initial = 65_535
        self._largest = _LARGEST_FRAME_BYTES
        self._is_silent = False
        self.connection = Connection(LIMITS, self._accept)
        self.look()
        if greets:
            self.give(PREFACE + frame(Kind.SETTINGS, 0, 0))

    def _accept(self, stream: Stream, block: Block) -> None:
        assert stream.number not in self.heard, "a number is used once (section 5.1.1)"
        stream.listener = self.heard[stream.number] = Heard(self, stream)
        self.windows.setdefault(stream.number, self._initial)
        self.behaviour.on_open(self.connection, stream, block)

    # --- what the client sends ---

    def give(self, octets: bytes) -> None:
        """Send bytes that grant nothing, or whose grants do not matter."""
        self.connection.receive(octets)
        self.look()

    def give_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Send a frame, and note what it grants."""
        if kind == Kind.WINDOW_UPDATE and len(payload) == 4:
            credit = int.from_bytes(payload, "big") & _MOST_WINDOW
            # The reserved bit means nothing (section 4.1).
            if number & _MOST_WINDOW in self.windows:
                self.windows[number & _MOST_WINDOW] += credit
        elif kind == Kind.SETTINGS and not flags & Flag.ACK and len(payload) % 6 == 0 and number == 0:
            self._note_settings(payload)
        self.give(frame(kind, flags, number, payload))

    def _note_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            key, value = (
                int.from_bytes(payload[at : at + 2], "big"),
                int.from_bytes(payload[at + 2 : at + 6], "big"),
            )
            if key == Setting.INITIAL_WINDOW_SIZE:
                change, self._initial = value - self._initial, value
                for number in self.windows.keys() - {0}:
                    self.windows[number] += change
            elif key == Setting.MAX_FRAME_SIZE:
                self._largest = max(self._largest, value)

    def act(self, action: Callable[[Connection], None]) -> None:
        """Have the server do something by itself."""
        action(self.connection)
        self.look()

    # --- what the server sends ---

    def look(self) -> None:
        """Read what the server sends, and check it and the server's own books."""
        connection = self.connection
        octets = b""
        while connection.has_output:
            part = connection.take_output()
            octets += part
            connection.note_sent(len(part))
        while octets:
            assert not self._is_silent, "nothing is sent after the last word (section 5.4.1)"
            assert len(octets) >= 9
            end = 9 + int.from_bytes(octets[:3], "big")
            assert len(octets) >= end, "frames are whole"
            assert end - 9 <= self._largest, "none is larger than was agreed on (section 4.2)"
            number = int.from_bytes(octets[5:9], "big")
            self._note(octets[3], octets[4], number, octets[9:end])
            octets = octets[end:]
        if connection.is_closing:
            self._is_silent = True
            assert not connection.streams
            assert all(heard.is_closed for heard in self.heard.values())
        self._check_books()

    def _note(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        connection = self.connection
        if kind in {Kind.DATA, Kind.HEADERS}:
            assert number in self.heard, "only on streams that the client opened"
            assert number not in self.ended, "nothing follows the end of a stream (section 5.1)"
            if kind == Kind.DATA:
                self.windows[0] -= len(payload)
                self.windows[number] -= len(payload)
                assert not payload or self.windows[0] >= 0 <= self.windows[number], "section 6.9"
                self.sent_bytes[number] = self.sent_bytes.get(number, 0) + len(payload)
            if flags & Flag.END_STREAM:
                self.ended[number] = None
        elif kind == Kind.RST_STREAM:
            # Section 6.4; a stream that was refused was opened, too.
            assert number <= connection.last_stream, "no stream is reset before it is opened"
            # After the end there may be one: it says that there is no need to send the rest (section 8.1).
            assert self.ended.get(number) is None, "none is reset twice (section 5.4.2)"
            self.ended[number] = ErrorCode(int.from_bytes(payload, "big"))
        elif kind == Kind.GOAWAY:
            last = int.from_bytes(payload[:4], "big")
            assert all(last <= other for other, _ in self.goaways), "it does not grow (section 6.8)"
            self.goaways.append((last, ErrorCode(int.from_bytes(payload[4:8], "big"))))
        elif kind == Kind.SETTINGS:
            assert number == 0
            assert len(payload) % 6 == 0
        elif kind == Kind.WINDOW_UPDATE:
            assert 0 < int.from_bytes(payload, "big") <= _MOST_WINDOW
        else:
            assert kind == Kind.PING
            assert len(payload) == 8

    def _check_books(self) -> None:
        connection = self.connection
        assert len(connection.streams) <= MOST_STREAMS
        assert len(connection._reader._rest) <= 9 + MAX_FRAME_BYTES
        assert len(connection._ended_here) <= 1024
        assert connection._receive_window + connection._owed <= _CONNECTION_WINDOW
        for number, stream in connection.streams.items():
            assert stream.number == number
            assert not stream.is_closed
            assert stream.receive_window + stream.owed <= _STREAM_WINDOW
            assert stream.send_window <= _MOST_WINDOW
