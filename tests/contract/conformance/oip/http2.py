"""HTTP/2 frames written by hand, right and wrong ones, for callers that no library would play.

Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK), grpc/grpc doc/PROTOCOL-HTTP2.md.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from oip.target import PATIENCE_SECONDS, SERVICE, Target

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frame types, RFC 9113 section 6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CANCEL: Final = struct.pack(">I", 8)
# The largest frame that may be sent to a server that allows no more, section 6.5.2.
LARGEST_FRAME_BYTES: Final = 16_384


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def setting(identifier: int, value: int) -> bytes:
    """Return one entry of a SETTINGS frame."""
    return struct.pack(">HI", identifier, value)


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """Return an HPACK integer, RFC 7541 section 5.1."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that no table keeps, RFC 7541 section 6.2.2."""
    return b"\x00" + integer(len(name), 7) + name + integer(len(value), 7) + value


def request_headers(method: str = "ModelInfer", *extra: tuple[bytes, bytes], service: str = SERVICE) -> bytes:
    """Return the header block of a gRPC request."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{service}/{method}".encode()),
        (b":authority", b"conformance"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *extra,
    )
    return b"".join(literal(name, value) for name, value in fields)


def message(body: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a gRPC message with its prefix, which may lie about the length."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def unary(stream: int, headers: bytes, body: bytes) -> bytes:
    """Return the frames of a whole unary request."""
    chunks = [body[i : i + LARGEST_FRAME_BYTES] for i in range(0, len(body), LARGEST_FRAME_BYTES)] or [b""]
    frames = [frame(HEADERS, END_HEADERS, stream, headers)]
    frames += [frame(DATA, 0, stream, chunk) for chunk in chunks[:-1]]
    return b"".join([*frames, frame(DATA, END_STREAM, stream, chunks[-1])])


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Wire:
    """A connection on which anything may be sent. Settings and pings are not answered unless asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""
        self.is_broken = False

    def send(self, *parts: bytes) -> "Wire":
        """Send bytes; a server that has closed the connection by now has had enough, which is its right."""
        try:
            for part in parts:
                self._socket.sendall(part)
        except OSError:
            self.is_broken = True
        return self

    def hello(self, *settings: bytes) -> "Wire":
        """Send the preface and SETTINGS."""
        return self.send(PREFACE, frame(SETTINGS, payload=b"".join(settings)))

    def frames(self, seconds: float = PATIENCE_SECONDS) -> Iterator[Frame]:
        """Yield what the server sends, until it closes the connection or nothing comes for so long."""
        self._socket.settimeout(seconds)
        while True:
            while len(self._buffer) < 9 or len(self._buffer) < 9 + self._length():
                try:
                    more = self._socket.recv(65_536)
                except OSError:
                    return
                if not more:
                    return
                self._buffer += more
            end = 9 + self._length()
            kind, flags, stream = struct.unpack(">BBI", self._buffer[3:9])
            found = Frame(kind, flags, stream & 0x7FFFFFFF, self._buffer[9:end])
            self._buffer = self._buffer[end:]
            if found.kind == SETTINGS and not found.flags & ACK:
                self.send(frame(SETTINGS, ACK))
            yield found

    def until_end_of(self, stream: int) -> list[Frame]:
        """Return the stream's frames up to its end, or up to the connection's."""
        found = []
        for each in self.frames():
            if each.kind == GOAWAY or each.stream == stream:
                found.append(each)
            is_last = each.kind == RST_STREAM or (each.kind in {HEADERS, DATA} and each.flags & END_STREAM)
            if each.stream == stream and is_last:
                break
        return found

    def half_close(self) -> None:
        """Send no more, and listen on."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.is_broken = True

    def linger_no_more(self) -> None:
        """Let the coming close be a TCP reset, as when a process dies with unread data."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def drain(self, seconds: float) -> None:
        """Read what comes until nothing does for so long."""
        for _ in self.frames(seconds):
            pass

    def _length(self) -> int:
        return int.from_bytes(self._buffer[:3], "big")


@contextmanager
def wire(target: Target) -> Iterator[Wire]:
    """Give a bare connection, and close it hard in the end."""
    connection = target.connect()
    try:
        yield Wire(connection)
    finally:
        connection.close()


def status_in(frames: Iterable[Frame]) -> int | None:
    """Return the grpc-status of a response whose server writes it as plain text, as grpc's own libraries do.

    None where there is none, or none that can be read without the whole of HPACK.
    """
    name = b"\x0bgrpc-status"
    for each in frames:
        _, found, value = each.payload.partition(name)
        if each.kind == HEADERS and found and value and value[0] in {1, 2}:
            return int(value[1 : 1 + value[0]])
    return None
