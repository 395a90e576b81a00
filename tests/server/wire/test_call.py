"""gRPC over a connection without a socket: what a caller's bytes come to, and what it is answered."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hpack import Decoder as TheirDecoder
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Failure
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.connection import Connection, Limits
from flyweight.server.wire.frames import PREFACE, ErrorCode, Kind, frame, rst_stream, settings
from flyweight.server.wire.heads import head_of, percent_encoded
from flyweight.server.wire.hpack import Block, Fields, encode
from flyweight.server.wire.messages import framed
from flyweight.server.wire.streams import Stream

MOST_BYTES = 1000
USUAL = {":method": "POST", ":scheme": "http", ":path": "/s/M", "content-type": "application/grpc"}


class Home:
    """One connection whose calls are gathered."""

    most_message_bytes = MOST_BYTES
    packs = False

    def __init__(self) -> None:
        self.calls: list[WireCall] = []
        self.connection = Connection(Limits(), self._accept)
        self.connection.receive(PREFACE + settings({}))
        self.answers()

    def _accept(self, stream: Stream, block: Block) -> None:
        head = head_of(block, 16 << 10)
        call = stream.listener = WireCall(self, self.connection, stream, head)
        if head.refusal is not None:
            call.end(head.refusal)
        self.calls.append(call)

    def do(self, job: Callable[[], None]) -> None:
        job()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def open(self, **more: str) -> WireCall:
        pairs = {**USUAL, **{key.replace("_", "-"): value for key, value in more.items()}}
        block = encode([(key.encode(), value.encode()) for key, value in pairs.items()])
        self.connection.receive(frame(Kind.HEADERS, 4, 2 * len(self.calls) + 1, block))
        return self.calls[-1]

    def send(self, octets: bytes, *, ends: bool = False) -> None:
        self.connection.receive(frame(Kind.DATA, int(ends), 2 * len(self.calls) - 1, octets))

    def answers(self) -> tuple[dict[str, str], bytes, list[ErrorCode]]:
        """Return the headers and trailers, the data, and the resets that were sent."""
        octets, headers, data, resets = b"", dict[str, str](), b"", list[ErrorCode]()
        while self.connection.has_output:
            part = self.connection.take_output()
            self.connection.note_sent(len(part))
            octets += part
        while octets:
            end = 9 + int.from_bytes(octets[:3], "big")
            kind, payload, octets = octets[3], octets[9:end], octets[end:]
            if kind == Kind.HEADERS:
                headers |= {
                    key.decode(): value.decode() for key, value in TheirDecoder().decode(payload, raw=True)
                }
            elif kind == Kind.DATA:
                data += payload
            elif kind == Kind.RST_STREAM:
                resets.append(ErrorCode(int.from_bytes(payload, "big")))
        return headers, data, resets


@pytest.fixture
def home() -> Home:
    return Home()


def read_all(call: WireCall) -> list[bytes | None]:
    """Ask for messages until there are no more."""
    found: list[bytes | None] = []

    def take(body: bytes | None) -> None:
        found.append(body)
        if body is not None:
            call.read(take)

    call.read(take)
    return found


def test_a_call_is_asked_and_answered(home: Home) -> None:
    call = home.open(grpc_timeout="250m", x_id="7", x_bin="AAEC", te="trailers")
    found = read_all(call)
    home.send(framed(b"question"), ends=True)
    assert found == [b"question", None]
    assert (call.path, call.metadata) == ("/s/M", (("x-id", "7"), ("x-bin", b"\0\1\2")))
    deadline = call.deadline_monotonic
    assert deadline is not None
    assert call.is_active()
    ended: list[bool] = []
    call.on_over(lambda: ended.append(call.is_active()))
    call.answer(b"answer")
    headers, data, resets = home.answers()
    assert headers == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert (data, resets, ended, call.code) == (framed(b"answer"), [], [False], Code.OK)


def test_a_refusal_is_one_header_block(home: Home) -> None:
    call = home.open()
    home.send(framed(b"x"), ends=True)
    call.end(Failure(Code.NOT_FOUND, "Es gibt kein Modell „a%b“.", (("retry-after", "1"),)))
    call.end(Failure(Code.INTERNAL, "too late"))
    headers, data, _ = home.answers()
    assert headers == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "Es gibt kein Modell %E2%80%9Ea%25b%E2%80%9C.",
        "retry-after": "1",
    }
    assert (data, call.code) == (b"", Code.NOT_FOUND)


def test_many_messages_go_both_ways(home: Home) -> None:
    call, sent = home.open(), list[bool]()
    call.begin(sent.append)
    found = read_all(call)
    home.send(framed(b"1") + framed(b"")[:3])
    home.send(framed(b"")[3:] + framed(b"3"), ends=True)
    assert found == [b"1", b"", b"3", None]
    call.send(b"a", sent.append)
    call.send(b"b", sent.append)
    call.end(None)
    headers, data, _ = home.answers()
    assert (headers["grpc-status"], data, sent) == ("0", framed(b"a") + framed(b"b"), [True] * 3)
    call.send(b"c", sent.append)
    assert sent[-1] is False


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(1, 30), max_size=40))
def test_messages_may_come_in_any_pieces(messages: list[bytes], cuts: list[int]) -> None:
    home = Home()
    found = read_all(home.open())
    octets = b"".join(framed(message) for message in messages)
    while octets:
        size = cuts.pop(0) if cuts else len(octets)
        home.send(octets[:size])
        octets = octets[size:]
    home.send(b"", ends=True)
    assert found == [*messages, None]


def test_a_million_messages_that_wait_are_read_without_a_tower_of_calls(home: Home) -> None:
    call = home.open()
    for _ in range(20):
        home.send(framed(b"") * 3000)
    home.send(b"", ends=True)
    assert len(read_all(call)) == 60_001


def test_what_is_not_read_holds_its_caller_back(home: Home) -> None:
    home.most_message_bytes = 1 << 20
    call = home.open()
    stream = home.connection.streams[1]
    for _ in range(128):
        home.send(framed(bytes(16_000)))
    assert stream.receive_window + stream.owed < 200_000, "nobody reads: the window stays shut"
    found = read_all(call)
    assert len(found) == 128
    assert stream.receive_window + stream.owed > 500_000


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"grpc_timeout": "5"}, 13, "grpc-timeout"),
        ({"grpc_timeout": "123456789S"}, 13, "grpc-timeout"),
        ({"grpc_timeout": "-1S"}, 13, "grpc-timeout"),
        ({"grpc_encoding": "zip"}, 12, "use one of identity,gzip,deflate"),
        ({"x_bin": "A"}, 13, "no base64"),
        ({"x": "y" * 16_250}, 8, "16384 are the most"),
    ],
)
def test_headers_that_cannot_be_followed_are_refused(
    home: Home, more: dict[str, str], status: int, words: str
) -> None:
    home.open(**more)
    headers, _, resets = home.answers()
    assert int(headers["grpc-status"]) == status
    assert words in headers["grpc-message"]
    assert resets == [ErrorCode.NO_ERROR]


@pytest.mark.parametrize(
    ("more", "status"), [({":method": "GET"}, 405), ({"content-type": "text/html"}, 415)]
)
def test_what_is_no_call_of_grpc_is_answered_in_http(more: dict[str, str], status: int) -> None:
    block = encode([(key.encode(), value.encode()) for key, value in {**USUAL, **more}.items()])
    assert head_of(_decoded(block), 16 << 10).status == status


def _decoded(block: bytes) -> Block:
    pairs = tuple((bytes(name), bytes(value)) for name, value in TheirDecoder().decode(block, raw=True))
    return Block(pairs, 0, Fields((), 0))


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (framed(bytes(MOST_BYTES + 1)), Code.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
        (b"\1" + framed(b"x")[1:], Code.INTERNAL),
        (b"\7" + framed(b"x")[1:], Code.INTERNAL),
    ],
)
def test_messages_that_cannot_be_taken_end_the_call(home: Home, octets: bytes, status: Code) -> None:
    call = home.open()
    read_all(call)
    home.send(octets)
    headers, _, _ = home.answers()
    assert (int(headers["grpc-status"]), call.code) == (status, status)


def test_a_stream_that_began_is_refused_by_trailers_alone(home: Home) -> None:
    call = home.open()
    call.begin(lambda _: None)
    assert home.answers()[0] == {":status": "200", "content-type": "application/grpc"}
    home.send(b"\7" + framed(b"x")[1:] + framed(b"y"))
    assert read_all(call) == [None]
    headers, _, _ = home.answers()
    assert sorted(headers) == ["grpc-message", "grpc-status"]


def test_a_large_message_is_gathered_frame_by_frame(home: Home) -> None:
    home.most_message_bytes = 64 << 20
    found = read_all(home.open())
    octets = framed(bytes(48 << 20))
    for at in range(0, len(octets), 16_384):
        home.send(octets[at : at + 16_384])
    assert [len(body or b"") for body in found] == [48 << 20]


def test_a_message_that_is_cut_ends_the_call(home: Home) -> None:
    read_all(home.open())
    home.send(framed(b"x")[:4], ends=True)
    assert home.answers()[0]["grpc-status"] == "13"


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_messages_are_unpacked_up_to_the_limit(name: str, pack: Any) -> None:
    for size, expected in ((MOST_BYTES, None), (MOST_BYTES + 1, "8"), (100_000_000, "8")):
        home = Home()
        found = read_all(home.open(grpc_encoding=name))
        home.send(b"\1" + framed(pack(bytes(min(size, 50_000))))[1:], ends=True)
        assert home.answers()[0].get("grpc-status") == expected
        assert (found[0] is not None) is (expected is None)


@pytest.mark.parametrize("octets", [b"junk", gzip.compress(b"x")[:-3], gzip.compress(b"x") + b"more"])
def test_what_cannot_be_unpacked_ends_the_call(home: Home, octets: bytes) -> None:
    read_all(home.open(grpc_encoding="gzip"))
    home.send(b"\1" + framed(octets)[1:], ends=True)
    assert home.answers()[0]["grpc-status"] == "13"


def test_a_caller_that_is_gone_is_told_of_as_no_more_messages(home: Home) -> None:
    call, ended = home.open(), list[Code]()
    found = read_all(call)
    call.on_over(lambda: ended.append(call.code))
    home.connection.receive(rst_stream(1, ErrorCode.CANCEL))
    assert (found, ended, call.is_active()) == ([None], [Code.CANCELLED], False)
    call.answer(b"nobody hears it")
    assert home.answers() == ({}, b"", [])


def test_a_call_whose_time_is_over_ends(home: Home) -> None:
    call = home.open(grpc_timeout="1S")
    deadline = call.deadline_monotonic
    assert deadline is not None
    call.expire(deadline - 0.1)
    assert call.is_active()
    call.expire(deadline)
    assert not call.is_active()
    headers, _, _ = home.answers()
    assert (call.code, headers["grpc-status"]) == (Code.DEADLINE_EXCEEDED, "4")


def test_a_call_whose_time_is_over_does_not_wait_for_who_does_not_read(home: Home) -> None:
    call = home.open(grpc_timeout="1S")
    call.begin(lambda _: None)
    call.send(bytes(100_000), lambda _: None)
    deadline = call.deadline_monotonic
    assert deadline is not None
    call.expire(deadline)
    assert (call.is_active(), home.answers()[2]) == (False, [ErrorCode.CANCEL])


@given(st.text())
def test_sentences_are_percent_encoded(sentence: str) -> None:
    from urllib.parse import unquote

    octets = percent_encoded(sentence)
    assert all(0x20 <= octet < 0x7F for octet in octets)
    assert unquote(octets.decode(), errors="strict") == sentence.encode("utf-8", "backslashreplace").decode()
