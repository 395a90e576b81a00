"""Where the wire and gRPC's core answer differently, and who is right by which text.

An outcome is a status of gRPC (0 to 16), a status of HTTP (405, 415), or how the stream ended without one.
The texts: RFC 9113, 9110, 4648 and 1952; PROTOCOL is gRPC's doc/PROTOCOL-HTTP2.md.
"""

import gzip
from dataclasses import dataclass
from typing import Final

from tests.server.wire.framing import Call, End, Pairs, message, usual
from tests.server.wire.pair import ECHO, SUM, TELL

HI: Final = message(b"hi")
MALFORMED: Final = "reset PROTOCOL_ERROR"


@dataclass(frozen=True)
class Deviation:
    """A call that the two answer differently."""

    what: str
    call: Call
    core: str
    wire: str
    right: str


def _with(*more: tuple[str, str], **instead: str | None) -> Call:
    """Return a call whose fields are the usual ones, but for `instead` (None leaves one out), and `more`."""
    kept: list[tuple[str, str]] = []
    for name, value in usual(TELL):
        new = instead.get(name.lstrip(":").replace("-", "_"), value)
        if new is not None:
            kept.append((name, new))
    return Call((*kept, *more), HI)


def _first(*pairs: tuple[str, str]) -> Call:
    return Call((*pairs, *usual(TELL)), HI)


def _sends(octets: bytes, *more: tuple[str, str], path: str = TELL, end: End = End.WITH_DATA) -> Call:
    return Call((*usual(path), *more), octets, end)


def _cut(fields: Pairs) -> Pairs:
    return (*fields[4:], *fields[:4])


_GZIP: Final = ("grpc-encoding", "gzip")
_PACKED: Final = gzip.compress(b"hi")
_COMPRESSED_FLAG: Final = "wire; PROTOCOL, Compressed-Flag: 0 or 1, and 1 only with a Message-Encoding"
_CUT: Final = "wire; PROTOCOL, Length-Prefixed-Message: a message is whole or it is none"
_CONTENT_TYPE: Final = "wire; PROTOCOL: what does not begin with application/grpc SHOULD be answered by 415"
_METHOD: Final = "wire; PROTOCOL, Method: POST; RFC 9110 section 15.5.6"
_BASE64: Final = "either; PROTOCOL, Custom-Metadata: binary headers are split at commas"
_TIMEOUT: Final = "wire; PROTOCOL, TimeoutValue: a positive integer of at most 8 digits"
_MALFORMED: Final = "wire; RFC 9113, section 8.1.1: a malformed request is a stream error, PROTOCOL_ERROR"

# Messages.
MESSAGES: Final = (
    Deviation("a message is cut", _sends(HI[:-1]), "12", "13", _CUT),
    Deviation("a prefix is cut", _sends(HI[:3]), "12", "13", _CUT),
    Deviation("the last of a stream is cut", _sends(HI + HI[:-1], path=ECHO), "0", "13", _CUT),
    Deviation("flag 2", _sends(message(b"hi", 2)), "0", "13", _COMPRESSED_FLAG),
    Deviation("flag 3", _sends(message(_PACKED, 3), _GZIP), "0", "13", _COMPRESSED_FLAG),
    Deviation("flag 129", _sends(message(b"hi", 129)), "0", "13", _COMPRESSED_FLAG),
    Deviation(
        "packed, and nothing in it",
        _sends(message(b"", 1), _GZIP),
        "0",
        "13",
        "wire; RFC 1952, section 2.2: no bytes are no gzip file",
    ),
    Deviation(
        "packed in a way that nobody knows",
        _sends(HI, ("grpc-encoding", "zip")),
        "13",
        "12",
        "wire; gRPC's doc/compression.md, section Test Cases: UNIMPLEMENTED",
    ),
)

# Fields that gRPC means something by.
FIELDS: Final = (
    Deviation("content-type of JSON", _with(content_type="application/json"), "0", "415", _CONTENT_TYPE),
    Deviation("no content-type", _with(content_type=None), "0", "415", _CONTENT_TYPE),
    Deviation("an empty content-type", _with(content_type=""), "0", "415", _CONTENT_TYPE),
    Deviation("GET", _with(method="GET"), "reset INTERNAL_ERROR", "405", _METHOD),
    Deviation("PUT", _with(method="PUT"), "reset INTERNAL_ERROR", "405", _METHOD),
    Deviation(
        "no te",
        _with(te=None),
        "reset INTERNAL_ERROR",
        "0",
        "core; PROTOCOL, TE is required, to find proxies that drop trailers; some clients do without",
    ),
    Deviation(
        "no authority",
        _with(authority=None),
        "reset INTERNAL_ERROR",
        "0",
        "wire; PROTOCOL, Request-Headers: [Authority]; RFC 9113, section 8.3.1",
    ),
    Deviation("binary metadata in a list", _with(("x-bin", "AAEC,AA")), "13", "0", "wire" + _BASE64[6:]),
    Deviation(
        "binary metadata with bits beyond its bytes",
        _with(("x-bin", "AB==")),
        "13",
        "0",
        "either; RFC 4648, section 3.5: MAY be refused",
    ),
    Deviation(
        "binary metadata after a zero byte",
        _with(("x-bin", "\0abc")),
        "0",
        MALFORMED,
        _MALFORMED + "; 8.2.1; the core's own way to send bytes as they are needs a setting",
    ),
    Deviation("a timeout of nine digits", _with(("grpc-timeout", "123456789S")), "0", "13", _TIMEOUT),
    Deviation("a timeout with a space", _with(("grpc-timeout", "5 S")), "0", "13", _TIMEOUT),
)

# What no HTTP/2 request may hold (RFC 9113, sections 8.2 and 8.3); the core answers most of it.
MALFORMED_REQUESTS: Final = (
    Deviation("a name with upper case", _with(("X-A", "1")), "13", MALFORMED, _MALFORMED + "; 8.2.1"),
    Deviation("a name with a space", _with(("x y", "1")), "13", MALFORMED, _MALFORMED + "; 8.2.1"),
    Deviation("an empty name", _with(("", "1")), "13", MALFORMED, _MALFORMED + "; 8.2.1, RFC 9110 5.1"),
    Deviation("a value with NUL", _with(("x", "a\0b")), "0", MALFORMED, _MALFORMED + "; 8.2.1"),
    Deviation("a value with LF", _with(("x", "a\nb")), "0", MALFORMED, _MALFORMED + "; 8.2.1"),
    Deviation("a value with CR", _with(("x", "a\rb")), "0", MALFORMED, _MALFORMED + "; 8.2.1"),
    Deviation("connection", _with(("connection", "close")), "0", MALFORMED, _MALFORMED + "; 8.2.2"),
    Deviation("transfer-encoding", _with(("transfer-encoding", "x")), "0", MALFORMED, _MALFORMED + "; 8.2.2"),
    Deviation("te of anything else", _with(te="x"), "13", MALFORMED, _MALFORMED + "; 8.2.2"),
    Deviation("an unknown pseudo-field", _first((":x", "1")), "13", MALFORMED, _MALFORMED + "; 8.3"),
    Deviation(":status", _first((":status", "200")), "0", MALFORMED, _MALFORMED + "; 8.3"),
    Deviation(
        "a pseudo-field after others",
        Call(_cut(usual(TELL)), HI),
        "0",
        MALFORMED,
        _MALFORMED + "; 8.3",
    ),
    Deviation(":path twice", _first((":path", TELL)), "0", MALFORMED, _MALFORMED + "; 8.3.1"),
    Deviation("no :method", _with(method=None), "reset INTERNAL_ERROR", MALFORMED, _MALFORMED + "; 8.3.1"),
    Deviation("no :scheme", _with(scheme=None), "reset INTERNAL_ERROR", MALFORMED, _MALFORMED + "; 8.3.1"),
    Deviation("no :path", _with(path=None), "reset INTERNAL_ERROR", MALFORMED, _MALFORMED + "; 8.3.1"),
    Deviation("an empty :path", _with(path=""), "12", MALFORMED, _MALFORMED + "; 8.3.1"),
    # Of a call that is answered at its end: one that is answered before was no worse until then.
    Deviation(
        "content-length of too much",
        _sends(HI, ("content-length", "8"), path=SUM),
        "0",
        MALFORMED,
        _MALFORMED + "; 8.1.1",
    ),
)

DEVIATIONS: Final = (*MESSAGES, *FIELDS, *MALFORMED_REQUESTS)
