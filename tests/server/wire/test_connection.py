"""HTTP/2 without a socket; the section numbers are those of RFC 9113."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.wire.connection import Connection, Limits
from flyweight.server.wire.frames import (
    PREFACE,
    SETTINGS_ACK,
    ErrorCode,
    Flag,
    Kind,
    Setting,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from flyweight.server.wire.hpack import Block, encode
from flyweight.server.wire.streams import Stream

HEADERS = encode(
    [
        (b":method", b"POST"),
        (b":path", b"/s/M"),
        (b":scheme", b"http"),
        (b"content-type", b"application/grpc"),
    ]
)


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Told:
    """What a listener heard."""

    stream: Stream
    block: Block
    data: bytes = b""
    ends: int = 0
    closed: list[ErrorCode | None] = field(default_factory=list)

    def on_data(self, payloads: Sequence[memoryview], size: int) -> None:
        self.data += b"".join(payloads)
        assert size == sum(map(len, payloads))

    def on_end(self) -> None:
        self.ends += 1

    def on_close(self, code: ErrorCode | None) -> None:
        self.closed.append(code)


def frames_of(octets: bytes) -> list[Frame]:
    found = []
    while octets:
        length = int.from_bytes(octets[:3], "big")
        found.append(Frame(octets[3], octets[4], int.from_bytes(octets[5:9], "big"), octets[9 : 9 + length]))
        octets = octets[9 + length :]
    return found


class Bench:
    """A connection and its client."""

    def __init__(self, *, greets: bool = True, **limits: Any) -> None:
        self.told: dict[int, Told] = {}
        self.connection = Connection(Limits(**limits), self._accept)
        if greets:
            self.connection.receive(PREFACE + settings({}))
            self.output()

    def _accept(self, stream: Stream, block: Block) -> None:
        stream.listener = self.told[stream.number] = Told(stream, block)

    def give(self, *parts: bytes) -> None:
        self.connection.receive(b"".join(parts))

    def open(self, number: int = 1, *, ends: bool = False) -> Told:
        flags = Flag.END_HEADERS | (Flag.END_STREAM if ends else Flag.NONE)
        self.give(frame(Kind.HEADERS, flags, number, HEADERS))
        return self.told[number]

    def output(self) -> list[Frame]:
        octets = b""
        while self.connection.has_output:
            part = self.connection.take_output()
            self.connection.note_sent(len(part))
            octets += part
        return frames_of(octets)

    def goaway(self) -> ErrorCode | None:
        """Return why the connection was ended; None when it was not."""
        ends = [each for each in self.output() if each.kind == Kind.GOAWAY]
        assert bool(ends) is self.connection.is_closing
        return ErrorCode(int.from_bytes(ends[-1].payload[4:8], "big")) if ends else None

    def resets(self) -> list[tuple[int, ErrorCode]]:
        return [
            (each.stream, ErrorCode(int.from_bytes(each.payload, "big")))
            for each in self.output()
            if each.kind == Kind.RST_STREAM
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


END = Flag.END_HEADERS | Flag.END_STREAM
PING = frame(Kind.PING, 0, 0, b"12345678")


def data(octets: bytes, number: int = 1, flags: int = 0) -> bytes:
    return frame(Kind.DATA, flags, number, octets)


def of_kind(frames: list[Frame], kind: int) -> list[Frame]:
    return [each for each in frames if each.kind == kind]


# --- the beginning ---


def test_the_server_greets_first_and_acknowledges_settings() -> None:
    bench = Bench(greets=False)
    ours, window = bench.output()
    assert (ours.kind, window.kind) == (Kind.SETTINGS, Kind.WINDOW_UPDATE)
    bench.give(PREFACE, settings({}))
    assert [(each.kind, each.flags) for each in bench.output()] == [(Kind.SETTINGS, Flag.ACK)]


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + PING])
def test_whoever_begins_otherwise_is_refused(octets: bytes) -> None:
    bench = Bench(greets=False)
    bench.give(octets)
    assert bench.goaway() is ErrorCode.PROTOCOL_ERROR


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_bytes_may_come_in_any_pieces(cuts: list[int]) -> None:
    bench = Bench(greets=False)
    octets = PREFACE + settings({Setting.INITIAL_WINDOW_SIZE: 7})
    octets += frame(Kind.HEADERS, 0, 1, HEADERS[:9]) + frame(Kind.CONTINUATION, 4, 1, HEADERS[9:])
    octets += data(b"hello") + data(b" you", flags=1) + PING
    while octets:
        size = cuts.pop(0) if cuts else len(octets)
        bench.give(octets[:size])
        octets = octets[size:]
    told = bench.told[1]
    assert (told.data, told.ends, told.block.pairs[1]) == (b"hello you", 1, (b":path", b"/s/M"))
    assert of_kind(bench.output(), Kind.PING)[0].payload == b"12345678"


# --- what ends the connection ---


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(b"\x10\x00\x01" + bytes((0, 0, 0, 0, 0, 1)), ErrorCode.FRAME_SIZE_ERROR, id="4.2 data"),
        pytest.param(b"\x01\x00\x01" + bytes((9, 0, 0, 0, 0, 1)), ErrorCode.FRAME_SIZE_ERROR, id="4.2"),
        pytest.param(frame(Kind.HEADERS, 4, 3, b"\xff"), ErrorCode.COMPRESSION_ERROR, id="4.3"),
        pytest.param(frame(Kind.HEADERS, 4, 2, HEADERS), ErrorCode.PROTOCOL_ERROR, id="5.1.1 even"),
        pytest.param(frame(Kind.HEADERS, 4, 0, HEADERS), ErrorCode.PROTOCOL_ERROR, id="5.1.1 zero"),
        pytest.param(data(b"x", 0), ErrorCode.PROTOCOL_ERROR, id="6.1 zero"),
        pytest.param(data(b"x", 9), ErrorCode.PROTOCOL_ERROR, id="5.1 idle data"),
        pytest.param(data(b"", flags=8), ErrorCode.FRAME_SIZE_ERROR, id="6.1 no room"),
        pytest.param(data(b"\x05abcd", flags=8), ErrorCode.PROTOCOL_ERROR, id="6.1 padding"),
        pytest.param(frame(Kind.HEADERS, 0x24, 3, b"1234"), ErrorCode.FRAME_SIZE_ERROR, id="6.2 priority"),
        pytest.param(frame(Kind.PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR, id="6.3 zero"),
        pytest.param(frame(Kind.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR, id="6.3"),
        pytest.param(frame(Kind.RST_STREAM, 0, 1, b"123"), ErrorCode.FRAME_SIZE_ERROR, id="6.4 size"),
        pytest.param(rst_stream(0, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR, id="6.4 zero"),
        pytest.param(rst_stream(9, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR, id="6.4 idle"),
        pytest.param(frame(Kind.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR, id="6.5 stream"),
        pytest.param(frame(Kind.SETTINGS, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR, id="6.5 size"),
        pytest.param(frame(Kind.SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR, id="6.5 ack"),
        pytest.param(settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR, id="6.5.2 push"),
        pytest.param(
            settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR, id="6.5.2 window"
        ),
        pytest.param(
            settings({Setting.MAX_FRAME_SIZE: 16_383}), ErrorCode.PROTOCOL_ERROR, id="6.5.2 small frames"
        ),
        pytest.param(
            settings({Setting.MAX_FRAME_SIZE: 1 << 24}), ErrorCode.PROTOCOL_ERROR, id="6.5.2 large frames"
        ),
        pytest.param(frame(Kind.PUSH_PROMISE, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR, id="8.4"),
        pytest.param(frame(Kind.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR, id="6.7 stream"),
        pytest.param(frame(Kind.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR, id="6.7 size"),
        pytest.param(frame(Kind.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR, id="6.8 stream"),
        pytest.param(frame(Kind.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR, id="6.8 size"),
        pytest.param(frame(Kind.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR, id="6.9 size"),
        pytest.param(window_update(0, 0), ErrorCode.PROTOCOL_ERROR, id="6.9 nothing"),
        pytest.param(window_update(9, 5), ErrorCode.PROTOCOL_ERROR, id="6.9 idle"),
        pytest.param(window_update(0, (1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR, id="6.9.1"),
        pytest.param(frame(Kind.CONTINUATION, 4, 1, HEADERS), ErrorCode.PROTOCOL_ERROR, id="6.10 alone"),
        pytest.param(
            frame(Kind.HEADERS, 0, 3, HEADERS) + PING, ErrorCode.PROTOCOL_ERROR, id="6.10 interrupted"
        ),
        pytest.param(
            frame(Kind.HEADERS, 0, 3, HEADERS) + frame(Kind.CONTINUATION, 4, 5, b""),
            ErrorCode.PROTOCOL_ERROR,
            id="6.10 other stream",
        ),
    ],
)
def test_what_is_wrong_with_the_connection_ends_it(bench: Bench, octets: bytes, code: ErrorCode) -> None:
    told = bench.open()
    bench.give(octets)
    assert bench.goaway() is code
    assert told.closed == [ErrorCode.CANCEL]
    bench.give(PING)
    assert bench.output() == [], "nobody listens any more"


# --- what ends a stream ---


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        pytest.param(window_update(1, 0), ErrorCode.PROTOCOL_ERROR, id="6.9 nothing"),
        pytest.param(window_update(1, (1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR, id="6.9.1"),
        pytest.param(frame(Kind.HEADERS, 4, 1, HEADERS), ErrorCode.PROTOCOL_ERROR, id="8.1 trailers"),
    ],
)
def test_what_is_wrong_with_a_stream_ends_that_one_only(bench: Bench, octets: bytes, code: ErrorCode) -> None:
    told, other = bench.open(1), bench.open(3)
    bench.give(octets)
    assert bench.resets() == [(1, code)]
    assert told.closed == [code]
    bench.give(data(b"x", 3, 1))
    assert (other.data, other.ends, other.closed) == (b"x", 1, [])


@pytest.mark.parametrize("late", [data(b"x"), frame(Kind.HEADERS, END, 1, HEADERS)])
def test_a_stream_that_ended_takes_nothing(bench: Bench, late: bytes) -> None:
    """Section 5.1, half-closed (remote)."""
    bench.open(ends=True)
    bench.give(late)
    assert bench.resets() == [(1, ErrorCode.STREAM_CLOSED)]


def test_headers_on_a_stream_that_is_over_end_the_connection(bench: Bench) -> None:
    told = bench.open(ends=True)
    bench.connection.answer(told.stream, b"\x88", b"body", b"\x88")
    bench.give(frame(Kind.HEADERS, END, 1, HEADERS))
    assert bench.goaway() is ErrorCode.STREAM_CLOSED


@pytest.mark.parametrize("late", [window_update(1, 5), rst_stream(1, ErrorCode.CANCEL), data(b"x")])
def test_what_was_under_way_as_we_ended_a_stream_is_passed_over(bench: Bench, late: bytes) -> None:
    """Section 5.1, closed."""
    bench.open()
    bench.connection.reset(1, ErrorCode.CANCEL)
    bench.output()
    bench.give(late)
    assert bench.output() == []
    assert not bench.connection.is_closing


def test_a_caller_may_reset_its_stream(bench: Bench) -> None:
    told = bench.open()
    bench.give(rst_stream(1, ErrorCode.CANCEL), data(b"x", flags=1))
    assert told.closed == [ErrorCode.CANCEL]
    assert (told.data, told.ends) == (b"", 0)


# --- what is passed over ---


def test_what_nobody_knows_is_passed_over(bench: Bench) -> None:
    """Sections 4.1, 5.3.2 and 6.5.2."""
    bench.give(frame(0x42, 0xFF, 1, b"?"), frame(Kind.PRIORITY, 0, 7, bytes(5)))  # type: ignore[arg-type]
    bench.give(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x12\x34\x00\x00\x00\x01", SETTINGS_ACK)
    bench.give(goaway(0, ErrorCode.NO_ERROR), PING[:4] + b"\x01" + PING[5:])
    assert [each.flags for each in bench.output()] == [Flag.ACK]
    told = bench.open()
    bench.give(data(b"\x03abc\x00\x00\x00", flags=9))
    assert (told.data, told.ends) == (b"abc", 1)


def test_padding_and_priority_of_headers_are_cut_off(bench: Bench) -> None:
    payload = b"\x02" + bytes(5) + HEADERS + b"\x00\x00"
    bench.give(frame(Kind.HEADERS, 0x2D, 1, payload))
    assert bench.told[1].block.pairs[1] == (b":path", b"/s/M")
    assert bench.told[1].ends == 1


# --- windows ---


def test_an_answer_goes_in_one_piece(bench: Bench) -> None:
    told = bench.open(ends=True)
    bench.connection.answer(told.stream, b"\x88", b"body", b"\x89")
    frames = bench.output()
    assert [(each.kind, each.flags, each.stream, each.payload) for each in frames] == [
        (Kind.HEADERS, Flag.END_HEADERS, 1, b"\x88"),
        (Kind.DATA, 0, 1, b"body"),
        (Kind.HEADERS, END, 1, b"\x89"),
    ]
    assert told.closed == [None]
    assert not bench.connection.streams


def test_an_answer_before_the_question_is_complete_tells_to_stop(bench: Bench) -> None:
    """Section 8.1."""
    told = bench.open()
    bench.connection.send_trailers(told.stream, b"\x89")
    assert bench.resets() == [(1, ErrorCode.NO_ERROR)]
    assert told.closed == [None]


@given(
    sizes=st.lists(st.integers(0, 50_000), min_size=1, max_size=4),
    window=st.integers(0, 60_000),
    grants=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40_000)), max_size=30),
)
def test_no_window_is_ever_passed_and_everything_arrives(
    sizes: list[int], window: int, grants: list[tuple[int, int]]
) -> None:
    """Section 6.9: several streams, all of whose answers wait for the windows of each and of all."""
    bench = Bench(greets=False)
    bench.give(PREFACE, settings({Setting.INITIAL_WINDOW_SIZE: window}))
    bench.output()
    windows = {0: 65_535}
    sent = dict.fromkeys(range(1, 2 * len(sizes), 2), 0)
    finished: list[int] = []

    def look() -> None:
        for each in bench.output():
            if each.kind == Kind.DATA:
                assert len(each.payload) <= 16_384
                windows[0] -= len(each.payload)
                windows[each.stream] -= len(each.payload)
                assert windows[0] >= 0 <= windows[each.stream]
                sent[each.stream] += len(each.payload)
            elif each.kind == Kind.HEADERS and each.flags & Flag.END_STREAM:
                finished.append(each.stream)

    for number, size in zip(sent, sizes, strict=True):
        windows[number] = window
        told = bench.open(number, ends=True)
        bench.connection.answer(told.stream, b"\x88", bytes(size), b"\x89")
        look()
    for which, credit in [*grants, *((0, 200_000) for _ in (1,)), *((n, 60_000) for n in range(1, 5))]:
        number = 2 * which - 1 if which else 0
        if number in windows:
            windows[number] += credit
            bench.give(window_update(number, credit))
            look()
    assert list(sent.values()) == sizes
    assert sorted(finished) == sorted(sent)
    assert not bench.connection.streams


def test_settings_in_mid_connection_change_windows_even_below_zero(bench: Bench) -> None:
    """Section 6.9.2."""
    told = bench.open(ends=True)
    bench.give(settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    bench.connection.send_data(told.stream, bytes(20))
    assert [len(each.payload) for each in of_kind(bench.output(), Kind.DATA)] == [10]
    bench.give(settings({Setting.INITIAL_WINDOW_SIZE: 4}))
    assert told.stream.send_window == -6
    bench.give(window_update(1, 6))
    assert of_kind(bench.output(), Kind.DATA) == []
    bench.give(settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    assert [len(each.payload) for each in of_kind(bench.output(), Kind.DATA)] == [10]


def test_larger_frames_are_used_once_they_are_agreed_on(bench: Bench) -> None:
    bench.give(settings({Setting.MAX_FRAME_SIZE: 40_000}))
    told = bench.open(ends=True)
    bench.connection.answer(told.stream, b"\x88", bytes(40_000), b"\x89")
    assert [len(each.payload) for each in of_kind(bench.output(), Kind.DATA)] == [40_000]


def test_who_sends_more_than_was_allowed_on_a_stream_loses_it(bench: Bench) -> None:
    bench.open()
    for _ in range(64):
        bench.give(data(bytes(16_384)))
    assert bench.resets() == []
    bench.give(data(b"x"))
    assert bench.resets() == [(1, ErrorCode.FLOW_CONTROL_ERROR)]


def test_what_is_given_back_may_be_sent_again(bench: Bench) -> None:
    told = bench.open()
    for _ in range(200):
        bench.give(data(bytes(16_384)))
        bench.connection.give_back(told.stream, 16_384)
    updates = of_kind(bench.output(), Kind.WINDOW_UPDATE)
    assert {each.stream for each in updates} == {1}
    assert len(told.data) == 200 * 16_384


def test_the_connections_window_is_given_back_whoever_reads(bench: Bench) -> None:
    """A stream that is not read must not keep the others from being heard."""
    for number in range(1, 60, 2):
        bench.open(number)
        for _ in range(64):
            bench.give(data(bytes(16_384), number))
    assert not bench.connection.is_closing
    assert {each.stream for each in of_kind(bench.output(), Kind.WINDOW_UPDATE)} == {0}


def test_a_client_that_does_not_read_makes_streams_wait_and_nothing_grow(bench: Bench) -> None:
    bench.give(settings({Setting.INITIAL_WINDOW_SIZE: (1 << 31) - 1}), window_update(0, 1 << 30))
    bench.output()
    told = bench.open(ends=True)
    bench.connection.answer(told.stream, b"\x88", bytes(4 << 20), b"\x89")
    waiting = bench.connection.take_output()
    assert len(waiting) < 300_000
    other = bench.open(3, ends=True)
    bench.connection.answer(other.stream, b"\x88", b"small", b"\x89")
    assert other.closed == [], "its data waits for the socket, too"
    bench.connection.note_sent(len(waiting))
    bench.output()
    assert (told.closed, other.closed) == ([None], [None])


# --- floods ---


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(settings({}), id="CVE-2019-9515 settings"),
        pytest.param(data(b""), id="CVE-2019-9518 empty data"),
        pytest.param(frame(Kind.PRIORITY, 0, 1, bytes(5)), id="CVE-2019-9513 priorities"),
        pytest.param(window_update(1, 1), id="window updates"),
        pytest.param(frame(0x42, 0, 0), id="frames nobody knows"),  # type: ignore[arg-type]
    ],
)
def test_frames_that_carry_nothing_are_too_many_at_some_point(bench: Bench, one: bytes) -> None:
    bench.open()
    for _ in range(900):
        bench.give(one)
    assert not bench.connection.is_closing
    for _ in range(20_000):
        bench.give(one)
    assert bench.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_calls_that_are_cancelled_at_once_are_too_many_at_some_point(bench: Bench) -> None:
    """CVE-2023-44487, rapid reset."""
    for number in range(1, 20_001, 2):
        if bench.connection.is_closing:
            break
        bench.open(number)
        bench.give(rst_stream(number, ErrorCode.CANCEL))
    assert bench.goaway() is ErrorCode.ENHANCE_YOUR_CALM
    assert 900 < len(bench.told) < 2_000


def test_calls_that_are_answered_earn_as_many_that_are_cancelled(bench: Bench) -> None:
    for number in range(1, 12_001, 4):
        told = bench.open(number, ends=True)
        bench.connection.answer(told.stream, b"\x88", b"", b"\x89")
        bench.open(number + 2)
        bench.give(rst_stream(number + 2, ErrorCode.CANCEL))
    assert bench.goaway() is None


def test_a_header_block_without_an_end_is_cut_off(bench: Bench) -> None:
    """CVE-2024-27316, CONTINUATION flood."""
    bench.give(frame(Kind.HEADERS, 0, 1, HEADERS))
    for _ in range(10):
        bench.give(frame(Kind.CONTINUATION, 0, 1, bytes(16_000)))
    assert bench.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_streams_beyond_the_limit_are_refused_and_may_be_tried_again() -> None:
    """Section 5.1.2."""
    bench = Bench(max_streams=2)
    bench.open(1)
    bench.open(3)
    bench.give(frame(Kind.HEADERS, END, 5, HEADERS))
    assert bench.resets() == [(5, ErrorCode.REFUSED_STREAM)]
    assert sorted(bench.told) == [1, 3]


def test_answers_that_are_asked_for_and_not_read_are_bounded(bench: Bench) -> None:
    for number in range(1, 100_001, 2):
        bench.give(frame(Kind.HEADERS, END, number, HEADERS))
        if bench.connection.is_closing:
            break
        if number in bench.told:
            bench.connection.answer(bench.told.pop(number).stream, b"\x88" * 500, b"", b"\x89" * 500)
    assert bench.connection.is_closing
    assert len(bench.connection.take_output()) < 2 << 20


# --- the end ---


def farewells(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return the last stream and the code of each GOAWAY."""
    payloads = [each.payload for each in of_kind(frames, Kind.GOAWAY)]
    return [(int.from_bytes(each[:4], "big"), int.from_bytes(each[4:8], "big")) for each in payloads]


def test_turning_away_refuses_what_is_new_and_goes_on_with_what_is_open(bench: Bench) -> None:
    """Section 6.8."""
    told = bench.open(1)
    bench.connection.turn_away()
    bench.connection.turn_away()
    assert farewells(bench.output()) == [(1, 0)]
    bench.give(frame(Kind.HEADERS, END, 3, HEADERS))
    assert bench.resets() == [(3, ErrorCode.REFUSED_STREAM)]
    bench.give(data(b"rest", 1, 1))
    bench.connection.answer(told.stream, b"\x88", b"answer", b"\x89")
    assert (told.data, told.closed) == (b"rest", [None])


def test_draining_takes_what_the_client_sent_before_it_heard_of_it(bench: Bench) -> None:
    """Section 6.8: first a number that no stream has, and a round trip later the real one."""
    bench.open(1)
    bench.connection.drain()
    bench.connection.drain()
    output = bench.output()
    assert farewells(output) == [((1 << 31) - 1, 0)]
    (ping,) = of_kind(output, Kind.PING)
    assert not ping.flags
    bench.open(3)
    bench.give(frame(Kind.PING, Flag.ACK, 0, ping.payload))
    assert farewells(bench.output()) == [(3, 0)]
    bench.give(frame(Kind.HEADERS, END, 5, HEADERS))
    assert bench.resets() == [(5, ErrorCode.REFUSED_STREAM)]
    assert sorted(bench.told) == [1, 3]


def test_an_answer_to_another_ping_is_not_taken_for_that(bench: Bench) -> None:
    bench.connection.ping()
    (ping,) = of_kind(bench.output(), Kind.PING)
    bench.connection.drain()
    bench.give(frame(Kind.PING, Flag.ACK, 0, ping.payload))
    bench.open(1)
    assert not bench.connection.is_draining


def test_the_last_stream_that_was_told_does_not_grow(bench: Bench) -> None:
    """Section 6.8."""
    bench.open(1)
    bench.connection.turn_away()
    bench.give(frame(Kind.HEADERS, END, 3, HEADERS))
    bench.output()
    bench.connection.close(ErrorCode.PROTOCOL_ERROR)
    assert farewells(bench.output()) == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_a_connection_that_was_ended_in_peace_is_not_ended_again(bench: Bench) -> None:
    bench.connection.turn_away()
    bench.output()
    bench.connection.close(ErrorCode.NO_ERROR)
    assert bench.output() == []


# --- pings ---


def test_pings_that_come_too_early_end_the_connection_in_gRPCs_words() -> None:  # noqa: N802 - as it is called
    bench = Bench(min_ping_seconds=1000)
    bench.give(PING * 3)
    assert not bench.connection.is_closing
    bench.give(PING)
    (last,) = of_kind(bench.output(), Kind.GOAWAY)
    assert int.from_bytes(last.payload[4:8], "big") == ErrorCode.ENHANCE_YOUR_CALM
    assert last.payload[8:] == b"too_many_pings"


@pytest.mark.parametrize("way", ["an answer", "headers", "data", "trailers"])
def test_clients_may_ping_after_headers_and_data(way: str) -> None:
    bench = Bench(min_ping_seconds=1000)
    connection = bench.connection
    for number in range(1, 401, 2):
        stream = bench.open(number, ends=True).stream
        if way == "an answer":
            connection.answer(stream, b"\x88", b"", b"\x89")
        elif way == "headers":
            connection.send_headers(stream, b"\x88")
        elif way == "data":
            connection.send_data(stream, b"data")
        else:
            connection.send_trailers(stream, b"\x88")
        bench.give(PING * 3)
        bench.output()
    assert not connection.is_closing


def test_answers_to_pings_that_nobody_sent_are_too_many_at_some_point(bench: Bench) -> None:
    for _ in range(20_000):
        bench.give(frame(Kind.PING, Flag.ACK, 0, b"12345678"))
    assert bench.goaway() is ErrorCode.ENHANCE_YOUR_CALM


def test_a_ping_may_come_as_often_as_it_likes_where_that_is_allowed() -> None:
    bench = Bench(min_ping_seconds=0)
    bench.give(PING * 900)
    assert not bench.connection.is_closing


@given(st.data())
def test_no_bytes_do_anything_but_end_the_connection(draw: Any) -> None:
    bench = Bench()
    bench.open()
    kinds = st.integers(0, 11)
    for _ in range(draw.draw(st.integers(1, 12))):
        kind, flags = draw.draw(kinds), draw.draw(st.integers(0, 255))
        number = draw.draw(st.sampled_from([0, 1, 2, 3, 5, 7]))
        payload = draw.draw(st.one_of(st.binary(max_size=30), st.just(HEADERS), st.just(bytes(8))))
        bench.give(frame(kind, flags, number, payload))  # type: ignore[arg-type]
    bench.goaway()
    if bench.connection.is_closing:
        assert not bench.connection.streams
