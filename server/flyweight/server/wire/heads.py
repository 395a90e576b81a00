"""gRPC's headers, status and messages as HTTP/2 carries them (gRPC's doc/PROTOCOL-HTTP2.md)."""

import binascii
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Failure
from flyweight.server.wire.hpack import Block, encode

Metadata = Sequence[tuple[str, str | bytes]]

_UNITS: Final = {b"n": 1e-9, b"u": 1e-6, b"m": 1e-3, b"S": 1.0, b"M": 60.0, b"H": 3600.0}
# TimeoutValue: "positive integer as ASCII string of at most 8 digits".
_MOST_TIMEOUT_DIGITS: Final = 8
_ENCODINGS: Final = {b"identity": 0, b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_ACCEPTED: Final = ",".join(name.decode() for name in _ENCODINGS)
_PLAIN: Final = (b":status", b"200"), (b"content-type", b"application/grpc")
# Statuses are percent-encoded but for printable ASCII without the percent sign.
_KEPT: Final = frozenset(range(0x20, 0x7F)) - {0x25}
# What the protocol itself says; all else is the caller's metadata.
_OURS: Final = frozenset(
    (b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"host")
)

HEADERS: Final = encode(_PLAIN)
HEADERS_GZIP: Final = encode([*_PLAIN, (b"grpc-encoding", b"gzip")])
OK_TRAILERS: Final = encode([(b"grpc-status", b"0")])


class Head:
    """What a call's header block says.

    Attributes:
        path: "/package.Service/Method".
        metadata: the caller's, by lower-case names; values of names that end in "-bin" are bytes.
        timeout_seconds: how long the caller waits; None for ever.
        window_bits: of zlib, to unpack a message with; 0 for messages that are not packed.
        takes_gzip: whether answers may be packed so.
        refusal: why the call cannot be taken, if it cannot.
        status: of HTTP, when this is no gRPC call at all; else 200.
    """

    __slots__ = ("metadata", "path", "refusal", "status", "takes_gzip", "timeout_seconds", "window_bits")

    def __init__(self, block: Block, most_bytes: int) -> None:
        self.path = ""
        self.timeout_seconds: float | None = None
        self.window_bits = 0
        self.takes_gzip = False
        self.refusal: Failure | None = None
        self.status = 200
        metadata: list[tuple[str, str | bytes]] = []
        method = content_type = b""
        for name, value in block.pairs:
            if name[:1] == b":":
                if name == b":path":
                    self.path = value.decode("ascii", "replace")
                elif name == b":method":
                    method = value
            elif name not in _OURS:
                self._add(metadata, name, value)
            elif name == b"content-type":
                content_type = value
            elif name == b"grpc-timeout":
                self.timeout_seconds = self._read_timeout(value)
            elif name == b"grpc-encoding":
                self._read_encoding(value)
            elif name == b"grpc-accept-encoding":
                self.takes_gzip = b"gzip" in [word.strip() for word in value.split(b",")]
        self.metadata: Metadata = tuple(metadata)
        if block.size > most_bytes:
            self.refusal = Failure(
                Code.RESOURCE_EXHAUSTED,
                f"The call's metadata has {block.size} bytes, and {most_bytes} are the most; send less.",
            )
        if method != b"POST":
            self.status = 405
        elif not content_type.startswith(b"application/grpc"):
            self.status = 415

    def _add(self, metadata: list[tuple[str, str | bytes]], name: bytes, value: bytes) -> None:
        key = name.decode("ascii", "replace")
        if not key.endswith("-bin"):
            metadata.append((key, value.decode("ascii", "replace")))
            return
        # A list of values may come as one, with commas between; padding may be missing.
        for part in value.split(b","):
            try:
                metadata.append((key, b64decode(part.strip() + b"=" * (-len(part.strip()) % 4))))
            except binascii.Error:
                self.refusal = Failure(Code.INTERNAL, f"The metadata {key!r} is no base64.")

    def _read_timeout(self, value: bytes) -> float | None:
        digits, unit = value[:-1], _UNITS.get(value[-1:])
        if unit is None or not digits.isdigit() or len(digits) > _MOST_TIMEOUT_DIGITS:
            self.refusal = Failure(Code.INTERNAL, "The call's grpc-timeout cannot be read.")
            return None
        return int(digits) * unit

    def _read_encoding(self, value: bytes) -> None:
        bits = _ENCODINGS.get(value)
        if bits is None:
            self.refusal = Failure(
                Code.UNIMPLEMENTED,
                f"Messages packed as {value.decode('ascii', 'replace')} cannot be read; use one of "
                f"{_ACCEPTED}.",
                (("grpc-accept-encoding", _ACCEPTED),),
            )
        else:
            self.window_bits = bits


def head_of(block: Block, most_bytes: int) -> Head:
    """Return what a block says; a block that comes again is understood already."""
    known = block.meaning
    if isinstance(known, Head):
        return known
    head = Head(block, most_bytes)
    block.meaning = head
    return head


def trailers_of(failure: Failure | None, *, begun: bool) -> bytes:
    """Return the block that ends a call; when nothing has `begun`, it is the only one (Trailers-Only)."""
    pairs: list[tuple[bytes, bytes]] = [] if begun else [*_PLAIN]
    if failure is None:
        pairs.append((b"grpc-status", b"0"))
        return encode(pairs)
    pairs.append((b"grpc-status", b"%d" % int(failure.code)))
    if failure.sentence:
        pairs.append((b"grpc-message", percent_encoded(failure.sentence)))
    for name, value in failure.trailing_metadata:
        data = value.encode()
        pairs.append((name.encode(), b64encode(data) if name.endswith("-bin") else data))
    return encode(pairs)


def http_status(status: int) -> bytes:
    """Return the block that answers what is no gRPC call."""
    return encode([(b":status", b"%d" % status)])


def percent_encoded(sentence: str) -> bytes:
    """Return a status message as the protocol has it (Percent-Encoded)."""
    octets = sentence.encode("utf-8", "backslashreplace")
    return b"".join(bytes((octet,)) if octet in _KEPT else b"%%%02X" % octet for octet in octets)
