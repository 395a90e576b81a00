"""gRPC's headers and status as HTTP/2 carries them (gRPC's doc/PROTOCOL-HTTP2.md; RFC 9113, section 8)."""

import binascii
import re
import zlib
from collections.abc import Sequence
from typing import Final

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Failure
from flyweight.server.rpc.messages import sendable
from flyweight.server.wire.frames import ErrorCode, StreamFault
from flyweight.server.wire.hpack import Block, Pair, encode

_UNITS: Final = {b"n": 1e-9, b"u": 1e-6, b"m": 1e-3, b"S": 1.0, b"M": 60.0, b"H": 3600.0}
# TimeoutValue: "positive integer as ASCII string of at most 8 digits".
_MOST_TIMEOUT_DIGITS: Final = 8
_ENCODINGS: Final = {b"identity": 0, b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_ACCEPTED: Final = ",".join(name.decode() for name in _ENCODINGS)
_CONTENT_TYPE: Final = b"application/grpc"
_PLAIN: Final = (b":status", b"200"), (b"content-type", _CONTENT_TYPE)
# Statuses are percent-encoded but for printable ASCII without the percent sign.
_KEPT: Final = frozenset(range(0x20, 0x7F)) - {0x25}
# What the protocol itself says; all else is the caller's metadata.
_OURS: Final = frozenset(
    (
        *(b"te", b"content-type", b"content-length", b"host"),
        *(b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"),
    )
)
# RFC 9113, section 8.3.1; section 8.3: no others.
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
# Section 8.2.2: what is about an HTTP/1.1 connection.
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
# Section 8.2.1: a name is a token (RFC 9110, section 5.6.2) in lower case.
_NAME: Final = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
# Space around a value is passed on, as the core does: gRPC's clients send it (ASCII-Value).
_find_forbidden: Final = re.compile(rb"[\x00\r\n]").search
# Names of metadata that were looked at: stock clients and proxies use a few dozen, of a few dozen letters.
_MOST_KNOWN_NAMES: Final = 1024
_LONGEST_KNOWN_NAME: Final = 64
# Of a content length: no 64 bits hold more.
_MOST_LENGTH_DIGITS: Final = 19

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
        content_length: how many bytes of data are to come, where the caller says so.
        refusal: why the call cannot be taken, if it cannot.
        status: of HTTP, when this is no gRPC call at all; else 200.
    """

    __slots__ = (
        "_content_type",
        "_count",
        "_is_sound",
        "_pseudo",
        "content_length",
        "metadata",
        "path",
        "refusal",
        "status",
        "takes_gzip",
        "timeout_seconds",
        "window_bits",
    )

    def __init__(self, start: "Head | None" = None) -> None:
        """Begin with what was read before, if anything was."""
        if start is None:
            self.timeout_seconds: float | None = None
            self.window_bits = self._count = 0
            self.takes_gzip = False
            self.content_length: int | None = None
            self.refusal: Failure | None = None
            self._content_type = b""
            self.path = ""
            self._pseudo: dict[bytes, bytes] = {}
            self.metadata: tuple[tuple[str, str | bytes], ...] = ()
        else:
            self.timeout_seconds = start.timeout_seconds
            self.window_bits, self._count = start.window_bits, start._count
            self.takes_gzip = start.takes_gzip
            self.content_length = start.content_length
            self.refusal = start.refusal
            self._content_type = start._content_type
            self.path = start.path
            self._pseudo = start._pseudo
            self.metadata = start.metadata
        self.status = 200
        # Whether these fields, and any others that are metadata, make a call.
        self._is_sound = False

    def read(self, pairs: Sequence[Pair]) -> None:
        """Read further fields.

        Raises:
            StreamFault: they are malformed (RFC 9113, section 8.1.1).
        """
        metadata: list[tuple[str, str | bytes]] = []
        for place, (name, value) in enumerate(pairs, self._count):
            if _find_forbidden(value) is not None:
                raise _malformed("A header's value has a character that none may have.")
            key = _KEYS.get(name)
            if key is not None:
                # As nearly always: metadata whose name was looked at before.
                metadata.append((key, value.decode("utf-8", "replace")))
            elif name in _OURS:
                self._read_ours(name, value)
            elif name in _PSEUDO:
                if len(self._pseudo) != place or name in self._pseudo:
                    raise _malformed("A pseudo-header comes twice, or after the headers.")
                # Another one: what this began with is others' as well.
                self._pseudo = {**self._pseudo, name: value}
            else:
                self._read_other(metadata, name, value)
        self._count += len(pairs)
        if metadata:
            self.metadata += tuple(metadata)

    def end(self, start: "Head", size: int, most_bytes: int) -> None:
        """Look at the whole of the block.

        Args:
            start: what it began with, which learns from it.
            size: of its fields.
            most_bytes: that it may have.

        Raises:
            StreamFault: it is malformed.
        """
        pseudo = self._pseudo
        is_alike = pseudo is start._pseudo and self._content_type is start._content_type
        if is_alike and start._is_sound and size <= most_bytes:
            return
        path = pseudo.get(b":path", b"")
        self.path = path.decode("utf-8", "replace")
        if size > most_bytes:
            # Of which some was left out, so nothing else is told from it.
            self.refusal = Failure(
                Code.RESOURCE_EXHAUSTED,
                f"The call's metadata has {size} bytes, and {most_bytes} are the most; send less.",
            )
            return
        if not path or b":method" not in pseudo or b":scheme" not in pseudo:
            raise _malformed("A request lacks its method, scheme or path.")
        if pseudo[b":method"] != b"POST":
            self.status = 405
        elif self._content_type[: len(_CONTENT_TYPE)].lower() != _CONTENT_TYPE:
            self.status = 415
        if self.status != 200:
            self.refusal = Failure(Code.UNKNOWN, f"HTTP status {self.status}: this is no gRPC call.")
        elif is_alike:
            start._is_sound, start.path = True, self.path

    def _read_ours(self, name: bytes, value: bytes) -> None:
        if name == b"grpc-timeout":
            self.timeout_seconds = self._read_timeout(value)
        elif name == b"content-type":
            self._content_type = value
        elif name == b"grpc-encoding":
            self._read_encoding(value)
        elif name == b"grpc-accept-encoding":
            self.takes_gzip = b"gzip" in [word.strip() for word in value.split(b",")]
        elif name == b"te" and value != b"trailers":
            # Section 8.2.2.
            raise _malformed("TE is 'trailers' in HTTP/2.")
        elif name == b"content-length":
            if not value.isdigit() or len(value) > _MOST_LENGTH_DIGITS:
                raise _malformed("The content length is no number.")
            self.content_length = int(value)

    def _read_other(self, metadata: list[tuple[str, str | bytes]], name: bytes, value: bytes) -> None:
        if name in _OF_CONNECTIONS or _NAME.fullmatch(name) is None:
            raise _malformed("A header's name is none of HTTP/2.")
        key = name.decode()
        if not key.endswith("-bin"):
            if len(_KEYS) >= _MOST_KNOWN_NAMES:
                _KEYS.clear()
            if len(name) <= _LONGEST_KNOWN_NAME:
                _KEYS[name] = key
            metadata.append((key, value.decode("utf-8", "replace")))
            return
        # A list of values may come as one, with commas between; padding may be missing.
        for part in value.split(b","):
            bare = part.strip()
            try:
                octets = binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
            except binascii.Error:
                self.refusal = Failure(Code.INTERNAL, sendable(f"The metadata {key!r} is no base64."))
                return
            metadata.append((key, octets))

    def _read_timeout(self, value: bytes) -> float | None:
        digits, unit = value[:-1], _UNITS.get(value[-1:])
        if unit is None or not digits.isdigit() or len(digits) > _MOST_TIMEOUT_DIGITS:
            self.refusal = Failure(Code.INTERNAL, "The call's grpc-timeout cannot be read.")
            return None
        if not int(digits):
            self.refusal = Failure(Code.DEADLINE_EXCEEDED, "The call's deadline is over.")
        return int(digits) * unit

    def _read_encoding(self, value: bytes) -> None:
        bits = _ENCODINGS.get(value)
        if bits is None:
            way = value.decode("ascii", "replace")
            sentence = f"Messages packed as {way} cannot be read; use one of {_ACCEPTED}."
            accepted = (("grpc-accept-encoding", _ACCEPTED),)
            self.refusal = Failure(Code.UNIMPLEMENTED, sendable(sentence), accepted)
        else:
            self.window_bits = bits


# Names of textual metadata as they were read; one thread at a time adds to it.
_KEYS: Final[dict[bytes, str]] = {}


def check_trailers(block: Block) -> None:
    """Look at the header block after a request's data (section 8.1), of which gRPC needs nothing.

    Raises:
        StreamFault: it is malformed.
    """
    for name, value in block.pairs:
        if name in _OF_CONNECTIONS or _NAME.fullmatch(name) is None:
            raise _malformed("A trailer's name is none of HTTP/2, or one of a request.")
        if _find_forbidden(value) is not None:
            raise _malformed("A trailer's value has a character that none may have.")


def _malformed(sentence: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, sentence)


def head_of(block: Block, most_bytes: int) -> Head:
    """Return what a block says; a block that comes again is understood already, and so is how it begins.

    Raises:
        StreamFault: it is malformed.
    """
    known = block.meaning
    if isinstance(known, Head):
        return known
    lead = block.lead
    start = lead.meaning
    if not isinstance(start, Head):
        start = Head()
        start.read(lead.pairs)
        # Only now: what is malformed is so each time.
        lead.meaning = start
    head = Head(start)
    head.read(block.pairs[len(lead.pairs) :])
    head.end(start, block.size, most_bytes)
    block.meaning = head
    return head


def trailers_of(failure: Failure | None, *, begun: bool) -> bytes:
    """Return the block that ends a call; when nothing has `begun`, it is the only one (Trailers-Only)."""
    if failure is None and begun:
        return OK_TRAILERS
    pairs: list[tuple[bytes, bytes]] = [] if begun else [*_PLAIN]
    if failure is None:
        return encode([*pairs, (b"grpc-status", b"0")])
    pairs.append((b"grpc-status", b"%d" % int(failure.code)))
    if failure.sentence:
        pairs.append((b"grpc-message", percent_encoded(failure.sentence)))
    pairs += [(name.encode(), value.encode()) for name, value in failure.trailing_metadata]
    return encode(pairs)


def http_status(status: int) -> bytes:
    """Return the block that answers what is no gRPC call."""
    pairs = [(b":status", b"%d" % status)]
    if status == 405:
        # RFC 9110, section 15.5.6.
        pairs.append((b"allow", b"POST"))
    return encode(pairs)


def percent_encoded(sentence: str) -> bytes:
    """Return a status message as the protocol has it (Percent-Encoded)."""
    octets = sentence.encode("utf-8", "backslashreplace")
    return b"".join(bytes((octet,)) if octet in _KEPT else b"%%%02X" % octet for octet in octets)
