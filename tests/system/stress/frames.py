"""HTTP/2 and gRPC by hand, for what no client library would send (RFC 9113, RFC 7541, gRPC over HTTP/2)."""

import socket
import struct
from contextlib import suppress
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
ACK = 1
CANCEL = 8

MODEL_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """Return a SETTINGS frame; names are those of RFC 9113, section 6.5.2."""
    numbers = {
        "HEADER_TABLE_SIZE": 1,
        "ENABLE_PUSH": 2,
        "MAX_CONCURRENT_STREAMS": 3,
        "INITIAL_WINDOW_SIZE": 4,
        "MAX_FRAME_SIZE": 5,
    }
    payload = b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items())
    return frame(SETTINGS, payload=payload)


def _text(text: bytes) -> bytes:
    """Return a string literal of HPACK without Huffman's code; longer than 126 bytes takes more prefix."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, prefix = len(text) - 127, b"\x7f"
    while rest >= 128:
        prefix += bytes([rest % 128 + 128])
        rest //= 128
    return prefix + bytes([rest]) + text


def header_block(path: str, *extra: tuple[str, str]) -> bytes:
    """Return the headers of a gRPC call, each a literal without indexing (RFC 7541, section 6.2.2)."""
    pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *extra,
    ]
    return b"".join(b"\x00" + _text(name.encode()) + _text(value.encode()) for name, value in pairs)


def headers(stream: int, path: str = MODEL_INFER, *extra: tuple[str, str], end: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream, header_block(path, *extra))


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def message(body: bytes, *, compressed: bool = False) -> bytes:
    """Return a gRPC message with its prefix."""
    return struct.pack(">BI", compressed, len(body)) + body


class Wire:
    """A connection that sends bytes as they are, and reads only what it is asked to. A context manager."""

    def __init__(self, address: tuple[str, int], *, greets: bool = True) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        if greets:
            self.send(PREFACE + settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> bool:
        """Send; tell whether the other end still takes it."""
        try:
            self.socket.sendall(content)
        except OSError:
            return False
        return True

    def push(self, content: bytes) -> int:
        """Send as much as is taken at once, without ever waiting; return how many bytes that were."""
        self.socket.setblocking(False)
        sent = 0
        with suppress(OSError):
            while sent < len(content):
                sent += self.socket.send(content[sent : sent + 65536])
        self.socket.settimeout(10)
        return sent

    def drain(self) -> bytes:
        """Return what is there to be read at the moment."""
        self.socket.setblocking(False)
        found = b""
        with suppress(OSError):
            while part := self.socket.recv(1 << 16):
                found += part
        self.socket.settimeout(10)
        return found

    def is_closed_by_server(self, timeout_seconds: float) -> bool:
        """Read until the other end closes; tell whether it did in time."""
        self.socket.settimeout(timeout_seconds)
        try:
            while self.socket.recv(1 << 16):
                continue
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
