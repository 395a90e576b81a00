"""An HTTP/2 client that sends whatever it is told, and says what came of it; for one thread.

Header blocks are read by the hpack package, so that what the wire writes is read by somebody else's code.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from hpack import Decoder

from flyweight.server.wire.frames import (
    PREFACE,
    SETTINGS_ACK,
    ErrorCode,
    Flag,
    Kind,
    Setting,
    frame,
    settings,
)

PATIENCE_SECONDS: Final = 20.0
_MOST_WINDOW: Final = (1 << 31) - 1

Pairs = Sequence[tuple[str, str]]


@dataclass
class Answer:
    """What came on one stream.

    `end` is "answered", or why there was no complete answer: "reset ...", "goaway ..." or "closed".
    """

    blocks: list[list[tuple[str, str]]] = field(default_factory=list)
    data: bytes = b""
    end: str = ""

    @property
    def said(self) -> dict[str, str]:
        """The fields of all header blocks."""
        return dict(pair for block in self.blocks for pair in block)

    def messages(self) -> list[bytes]:
        """Return the messages (gRPC's Length-Prefixed-Message)."""
        found, at = [], 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at + 1 : at + 5], "big")
            assert self.data[at] == 0, "nobody asked for packed messages"
            found.append(self.data[at + 5 : at + 5 + size])
            at += 5 + size
        return found


class RawClient:
    """One connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        # A server that waits for the rest of what was sent would wait for Nagle's algorithm, too.
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._decoder = Decoder()
        self._answers: dict[int, Answer] = {}
        self._is_over = ""
        self.pongs = 0
        self.is_greeted = False
        window = (_MOST_WINDOW - 65_535).to_bytes(4, "big")
        greeting = settings({Setting.INITIAL_WINDOW_SIZE: _MOST_WINDOW})
        self.send(PREFACE + greeting + frame(Kind.WINDOW_UPDATE, 0, 0, window))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def send(self, octets: bytes) -> None:
        """Send bytes; a server that is gone already says so when it is read."""
        try:
            self._sock.sendall(octets)
        except OSError:
            self._is_over = self._is_over or "closed"

    def answer(self, stream: int) -> Answer:
        """Wait until a stream is over, and return what came on it."""
        answer = self._answers.setdefault(stream, Answer())
        while not answer.end:
            self._read()
            answer.end = answer.end or self._is_over
        return answer

    def ping(self) -> bool:
        """Tell whether the connection still lives: whether what was sent before was read."""
        wanted = self.pongs + 1
        self.send(frame(Kind.PING, 0, 0, b"are you?"))
        while self.pongs < wanted and not self._is_over:
            self._read()
        return self.pongs >= wanted

    def end(self) -> str:
        """Return how the connection ended, "" if it has not."""
        return self._is_over

    def _read(self) -> None:
        try:
            octets = self._sock.recv(1 << 18)
        except ConnectionError:
            octets = b""
        if not octets:
            self._is_over = self._is_over or "closed"
            return
        self._rest += octets
        while len(self._rest) >= 9:
            end = 9 + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < end:
                break
            kind, flags = self._rest[3:5]
            number, payload = int.from_bytes(self._rest[5:9], "big"), self._rest[9:end]
            self._rest = self._rest[end:]
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == Kind.SETTINGS and not flags & Flag.ACK:
            self.is_greeted = True
            self.send(SETTINGS_ACK)
        elif kind == Kind.PING:
            if flags & Flag.ACK:
                self.pongs += 1
            else:
                self.send(frame(Kind.PING, Flag.ACK, 0, payload))
        elif kind == Kind.GOAWAY:
            code = ErrorCode(int.from_bytes(payload[4:8], "big"))
            self._is_over = self._is_over or f"goaway {code.name}"
        elif kind in {Kind.HEADERS, Kind.DATA, Kind.RST_STREAM}:
            self._take_on_stream(kind, flags, number, payload)

    def _take_on_stream(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        answer = self._answers.setdefault(number, Answer())
        if kind == Kind.RST_STREAM:
            # After a whole answer it only tells to send no more (RFC 9113, section 8.1).
            code = ErrorCode(int.from_bytes(payload, "big"))
            answer.end = answer.end or f"reset {code.name}"
            return
        assert not answer.end, "nothing comes on a stream that is over"
        if kind == Kind.DATA:
            answer.data += payload
        else:
            assert flags & Flag.END_HEADERS, "neither server cuts its header blocks"
            pairs = self._decoder.decode(payload, raw=True)
            answer.blocks.append([(bytes(name).decode(), bytes(value).decode()) for name, value in pairs])
        if flags & Flag.END_STREAM:
            answer.end = "answered"
