"""Callers that speak HTTP/2 badly, on purpose or not: afterwards the server still answers the others.

REQUIRED of every case: a client that comes afterwards, and one that was there before, get right answers.
ALLOWED: anything at all on the connection that misbehaves; closing it is the usual and the best thing.
"""

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest
from oip import http2
from oip.cases import ROBUSTNESS, case
from oip.encoding import samples
from oip.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    frame,
    integer,
    literal,
    message,
    request_headers,
    setting,
    unary,
    wire,
)
from oip.requests import add_sub_request, identity_request
from oip.target import Target

GOOD: Final = add_sub_request().SerializeToString()
RFC: Final = "RFC 9113, section "
# How long a misbehaving client listens for a reply before it goes; only so that the server has begun.
_LISTEN_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Abuse:
    """Something a client should not do, and where that is written."""

    statement: str
    do: Callable[[Wire], object]
    source: str = "none in the protocol"


def noise(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


def opened(stream: int, *, end: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, request_headers())


def many_streams(*after: bytes) -> Iterator[bytes]:
    """Yield two thousand streams, each opened and then treated by the frames `after` with its number."""
    for stream in range(1, 4001, 2):
        yield opened(stream) + b"".join(
            part[:5] + struct.pack(">I", stream) + part[9:] if part[:3] else part for part in after
        )


def endless_headers(megabytes: int) -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, request_headers())
    chunk = literal(b"x-long", b"v" * 16_000)
    for _ in range(megabytes * 64):
        yield frame(CONTINUATION, 0, 1, chunk)


def large_header(kilobytes: int) -> bytes:
    """Return a request with one header of so many kilobytes, in as many frames as that takes."""
    block = request_headers("ModelInfer", (b"x-long", b"v" * (kilobytes << 10)))
    size = http2.LARGEST_FRAME_BYTES
    parts = [block[i : i + size] for i in range(0, len(block), size)]
    frames = [frame(HEADERS, 0, 1, parts[0]), *(frame(CONTINUATION, 0, 1, part) for part in parts[1:-1])]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, 1, parts[-1])


def unread(connection: Wire) -> None:
    """Ask for more than the window of zero bytes lets through, twenty times, and read nothing."""
    connection.hello(setting(4, 0))
    body = message(identity_request("FP32", samples("FP32").repeat(1000)).SerializeToString())
    for stream in range(1, 40, 2):
        connection.send(unary(stream, request_headers(), body))


def raw(data: bytes) -> Callable[[Wire], object]:
    return lambda connection: connection.send(data)


def after_hello(*parts: bytes) -> Callable[[Wire], object]:
    return lambda connection: connection.hello().send(*parts)


def flood(parts: Callable[[], Iterator[bytes]]) -> Callable[[Wire], object]:
    return lambda connection: connection.hello().send(*parts())


TLS_HELLO: Final = bytes.fromhex("1603010200010001fc0303") + noise(501, 4)

ABUSES: Final[dict[str, Abuse]] = {
    "garbage/before-the-preface": Abuse(
        "64 KiB of noise in place of the preface.", raw(noise(65_536, 1)), RFC + "3.4"
    ),
    "garbage/after-the-preface": Abuse(
        "64 KiB of noise after the preface.", after_hello(noise(65_536, 2)), RFC + "4.1"
    ),
    "garbage/http1": Abuse(
        "An HTTP/1.1 request.",
        raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        RFC + "3.4",
    ),
    "garbage/tls": Abuse("A TLS ClientHello on the plain port.", raw(TLS_HELLO)),
    "garbage/headers": Abuse(
        "Noise as a header block.", after_hello(frame(HEADERS, 5, 1, noise(2000, 3))), "RFC 7541"
    ),
    "silence/nothing": Abuse("Nothing at all.", lambda _: None),
    "silence/half-a-preface": Abuse("Half of the preface, and then nothing.", raw(PREFACE[:10])),
    "silence/half-a-frame": Abuse("Half of a frame's head, and then nothing.", after_hello(b"\0\0\xff\0")),
    "silence/half-a-request": Abuse(
        "Half of a message, and then nothing.", after_hello(opened(1) + frame(DATA, 0, 1, message(GOOD)[:20]))
    ),
    "silence/no-data": Abuse("A request whose message never comes.", after_hello(opened(1))),
    "frame/too-large": Abuse(
        "A frame longer than the server allows.",
        after_hello(opened(1) + frame(DATA, 0, 1, bytes(1 << 20))),
        RFC + "4.2",
    ),
    "frame/unknown-type": Abuse(
        "A frame of an unknown type, and a request.",
        after_hello(frame(0xBE, 0xFF, 0, b"?") + unary(1, request_headers(), message(GOOD))),
        RFC + "5.5",
    ),
    "frame/data-on-stream-0": Abuse("DATA on stream 0.", after_hello(frame(DATA, 0, 0, b"x")), RFC + "6.1"),
    "frame/data-on-an-idle-stream": Abuse(
        "DATA on a stream that was never opened.", after_hello(frame(DATA, 0, 7, b"x")), RFC + "5.1"
    ),
    "frame/even-stream": Abuse("A stream with an even number.", after_hello(opened(2)), RFC + "5.1.1"),
    "frame/stream-backwards": Abuse(
        "Streams with falling numbers.", after_hello(opened(9) + opened(3)), RFC + "5.1.1"
    ),
    "frame/push-promise": Abuse(
        "A PUSH_PROMISE from a client.",
        after_hello(frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2))),
        RFC + "8.4",
    ),
    "frame/ping-size": Abuse(
        "A PING of seven bytes.", after_hello(frame(PING, 0, 0, b"1234567")), RFC + "6.7"
    ),
    "frame/settings-size": Abuse(
        "SETTINGS of five bytes.", after_hello(frame(SETTINGS, 0, 0, b"12345")), RFC + "6.5"
    ),
    "frame/padding": Abuse(
        "DATA with more padding than payload.",
        after_hello(opened(1) + frame(DATA, 8, 1, b"\xff1")),
        RFC + "6.1",
    ),
    "frame/continuation-alone": Abuse(
        "CONTINUATION without HEADERS.", after_hello(frame(CONTINUATION, END_HEADERS, 1, b"")), RFC + "6.10"
    ),
    "frame/headers-interrupted": Abuse(
        "Another frame within a header block.",
        after_hello(frame(HEADERS, 0, 1, request_headers()) + frame(PING, 0, 0, bytes(8))),
        RFC + "6.10",
    ),
    "frame/depends-on-itself": Abuse(
        "A stream that depends on itself.",
        after_hello(frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 1))),
        RFC + "5.3.1",
    ),
    "window/zero": Abuse(
        "A WINDOW_UPDATE by zero.", after_hello(opened(1) + frame(WINDOW_UPDATE, 0, 1, bytes(4))), RFC + "6.9"
    ),
    "window/overflow": Abuse(
        "WINDOW_UPDATEs beyond 2^31 - 1.",
        after_hello(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 3),
        RFC + "6.9.1",
    ),
    "window/setting-too-large": Abuse(
        "An initial window beyond 2^31 - 1.", lambda c: c.hello(setting(4, 2**32 - 1)), RFC + "6.5.2"
    ),
    "window/nothing-is-read": Abuse("Large responses are asked for and never read.", unread, RFC + "10.5"),
    "headers/64-kilobytes": Abuse("A header of 64 KiB.", after_hello(large_header(64)), RFC + "10.5.1"),
    "headers/1-megabyte": Abuse("A header of 1 MiB.", after_hello(large_header(1024)), RFC + "10.5.1"),
    "headers/endless": Abuse(
        "16 MiB of CONTINUATION without an end.", flood(lambda: endless_headers(16)), "CERT/CC VU#421644"
    ),
    "headers/index-unknown": Abuse(
        "A reference beyond the header table.",
        after_hello(frame(HEADERS, 5, 1, integer(4000, 7, 0x80))),
        "RFC 7541, section 2.3.3",
    ),
    "headers/index-zero": Abuse(
        "A reference to entry zero.", after_hello(frame(HEADERS, 5, 1, b"\x80")), "RFC 7541, section 6.1"
    ),
    "headers/integer-overflow": Abuse(
        "An HPACK integer of forty bytes.",
        after_hello(frame(HEADERS, 5, 1, b"\xff" * 40)),
        "RFC 7541, section 5.1",
    ),
    "headers/table-size": Abuse(
        "A header table of 4 GiB.",
        after_hello(frame(HEADERS, 5, 1, integer(2**32, 5, 0x20) + request_headers())),
        "RFC 7541, section 6.3",
    ),
    "headers/no-path": Abuse(
        "A request without :path.",
        after_hello(frame(HEADERS, 5, 1, literal(b":method", b"POST"))),
        RFC + "8.3.1",
    ),
    "headers/bad-timeout": Abuse(
        "A grpc-timeout that is none.",
        after_hello(
            unary(
                1, request_headers("ModelInfer", (b"grpc-timeout", b"99999999999999999999H")), message(GOOD)
            )
        ),
        "grpc/grpc, doc/PROTOCOL-HTTP2.md",
    ),
    "flood/settings": Abuse("Ten thousand SETTINGS.", after_hello(frame(SETTINGS) * 10_000), "CVE-2019-9515"),
    "flood/ping": Abuse(
        "Ten thousand PINGs.", after_hello(frame(PING, 0, 0, bytes(8)) * 10_000), "CVE-2019-9512"
    ),
    "flood/empty-data": Abuse(
        "Ten thousand empty DATA frames.",
        after_hello(opened(1) + frame(DATA, 0, 1) * 10_000),
        "CVE-2019-9518",
    ),
    "flood/priority": Abuse(
        "Ten thousand PRIORITY frames.",
        after_hello(frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 1)) * 10_000),
        "CVE-2019-9513",
    ),
    "flood/window-updates": Abuse(
        "Ten thousand WINDOW_UPDATEs.",
        after_hello(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 10_000),
        RFC + "10.5",
    ),
    "flood/rapid-reset": Abuse(
        "Two thousand requests, each reset at once.",
        flood(lambda: many_streams(frame(RST_STREAM, 0, 1, http2.CANCEL))),
        "CVE-2023-44487",
    ),
    "flood/made-you-reset": Abuse(
        "Two thousand requests, each with a frame that makes the server reset it.",
        flood(lambda: many_streams(frame(WINDOW_UPDATE, 0, 1, bytes(4)))),
        "CVE-2025-8671",
    ),
    "flood/open-streams": Abuse("Two thousand requests that never end.", flood(many_streams), RFC + "5.1.2"),
    "length/4-gigabytes": Abuse(
        "A message that says it has 4 GiB.",
        after_hello(unary(1, request_headers(), message(GOOD, length=2**32 - 1))),
        "grpc/grpc, doc/PROTOCOL-HTTP2.md",
    ),
    "length/too-short": Abuse(
        "A message that says it is shorter than it is.",
        after_hello(unary(1, request_headers(), message(GOOD, length=3))),
        "grpc/grpc, doc/PROTOCOL-HTTP2.md",
    ),
    "length/too-long": Abuse(
        "A message that says it is longer than it is.",
        after_hello(unary(1, request_headers(), message(GOOD, length=len(GOOD) + 9))),
        "grpc/grpc, doc/PROTOCOL-HTTP2.md",
    ),
}


@pytest.mark.parametrize("abuse", [pytest.param(abuse, id=name) for name, abuse in ABUSES.items()])
@case("robustness/{}", ROBUSTNESS)
def test_bad_http2_harms_only_itself(target: Target, abuse: Abuse) -> None:
    """The abuse is committed, and the server answers others, while the connection is open and afterwards."""
    with wire(target) as connection:
        abuse.do(connection)
        connection.drain(_LISTEN_SECONDS)
        target.must_still_answer()
    target.must_still_answer()


@case("robustness/connections/half-open", ROBUSTNESS)
def test_a_hundred_silent_connections_keep_nobody_out(target: Target) -> None:
    """A hundred connections that say nothing, or stop after the preface, leave room for others.

    Source: none in the protocol.
    """
    with ExitStack() as stack:
        for number in range(100):
            connection = stack.enter_context(wire(target))
            if number % 2:
                connection.hello()
        target.must_still_answer()


@case("robustness/connections/open-requests", ROBUSTNESS)
def test_requests_that_never_end_keep_nobody_out(target: Target) -> None:
    """Twenty connections with twenty requests each, whose messages never come, leave room for others.

    Source: none in the protocol; the slow loris of HTTP/1, with streams.
    """
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(wire(target))
            connection.hello().send(b"".join(opened(stream) for stream in range(1, 41, 2)))
            connection.drain(_LISTEN_SECONDS / 10)
        target.must_still_answer()


@case("robustness/connections/churn", ROBUSTNESS)
def test_connections_that_come_and_break_leave_nothing(target: Target) -> None:
    """Three hundred connections that are reset in the middle of a request leave the server whole.

    Source: none in the protocol.
    """
    for number in range(300):
        with wire(target) as connection:
            connection.hello().send(opened(1) + frame(DATA, 0, 1, message(GOOD)[: number % 40]))
            connection.linger_no_more()
    target.must_still_answer()


@case("robustness/connections/half-closed", ROBUSTNESS)
def test_a_client_that_closes_its_side_gets_its_answer_or_none(target: Target) -> None:
    """A client that shuts its sending side after its request harms nobody; ALLOWED: an answer, or none.

    Source: RFC 9113, section 9.1.
    """
    with wire(target) as connection:
        connection.hello().send(unary(1, request_headers(), message(GOOD))).half_close()
        connection.drain(_LISTEN_SECONDS)
    target.must_still_answer()
