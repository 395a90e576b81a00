"""A server of the wire whose loop the test turns itself, and what a client says to it."""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import ConnectionSettings
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.frames import PREFACE, Kind, frame, settings
from flyweight.server.wire.hpack import encode
from flyweight.server.wire.messages import framed
from flyweight.server.wire.server import WireServer

if TYPE_CHECKING:
    from flyweight.server.wire.call import WireCall

PATIENCE_SECONDS = 20.0
TERMS = ConnectionSettings()
HEADERS = encode(
    [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M")),
        (b"content-type", b"application/grpc"),
    ]
)
ASK = frame(Kind.HEADERS, 4, 1, HEADERS) + frame(Kind.DATA, 1, 1, framed(b"question"))


class Port:
    """A server whose calls are gathered, and which lives while somebody waits for something."""

    def __init__(self, pems: Reloaded[Pems] | None = None, terms: ConnectionSettings = TERMS) -> None:
        self.calls: list[WireCall] = []
        self.server = WireServer(Limits(), 1 << 20, self.calls.append, terms)
        self.number = self.server.listen("127.0.0.1:0", pems)
        self.server.start()

    def live_until(self, condition: Callable[[], object]) -> None:
        ends = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < ends
            self.server.take(time.monotonic() + 0.005)

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.number), PATIENCE_SECONDS)
        # What is sent is there at once, however little it is.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(PREFACE + settings({}))
        return sock

    def close(self) -> None:
        self.server.shut_down()
        while self.server.take(None) is not None:
            pass


def received(sock: socket.socket, what: bytes) -> Callable[[], bool]:
    """Return a condition that what comes out of a socket has these bytes in it."""
    sock.settimeout(0.01)
    found = bytearray()

    def look() -> bool:
        with contextlib.suppress(TimeoutError):
            found.extend(sock.recv(1 << 20))
        return what in found

    return look
