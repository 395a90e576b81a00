"""What a client may do at no cost of its own: each is bounded, and ends its connection only."""

import gzip
from collections.abc import Callable

import pytest

from flyweight.server.errors import Code
from flyweight.server.wire import connection as connections
from flyweight.server.wire import heads
from flyweight.server.wire.frames import (
    ErrorCode,
    Flag,
    Kind,
    Setting,
    frame,
    rst_stream,
    settings,
    window_update,
)
from flyweight.server.wire.hpack import encode
from flyweight.server.wire.messages import framed
from tests.server.wire.test_call import Home
from tests.server.wire.test_connection import HEADERS, Bench, data

MANY = 20_000
PSEUDO = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M"))


def open_and_answer(bench: Bench, number: int) -> None:
    told = bench.open(number, ends=True)
    bench.connection.answer(told.stream, b"\x88", b"", b"\x89")
    bench.output()


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(frame(Kind.SETTINGS, Flag.ACK, 0), id="acknowledged settings"),
        pytest.param(window_update(0, 1), id="the connection's window"),
        pytest.param(window_update(1, 1), id="a closed stream's window"),
        pytest.param(data(b"", 3), id="empty data on a stream that was reset"),
        pytest.param(data(b"x", 3), id="little data on a stream that was reset"),
        pytest.param(frame(Kind.HEADERS, Flag.END_HEADERS, 3, HEADERS), id="headers of one"),
    ],
)
def test_frames_that_change_nothing_are_too_many_at_some_point(one: bytes) -> None:
    bench = Bench()
    open_and_answer(bench, 1)
    bench.open(3)
    bench.connection.reset(3, ErrorCode.CANCEL)
    for _ in range(900):
        bench.give(one)
    assert not bench.connection.is_closing
    for _ in range(MANY):
        bench.give(one)
        bench.output()
    assert bench.connection.is_closing


def test_little_data_that_comes_at_once_is_too_much_as_well() -> None:
    bench = Bench()
    for number in (3, 5):
        bench.open(number)
        bench.connection.reset(number, ErrorCode.CANCEL)
    for _ in range(10):
        bench.give((data(b"x", 3) + data(b"x", 5)) * 1000)
        bench.output()
    assert bench.connection.is_closing


def test_calls_after_the_last_are_too_many_at_some_point() -> None:
    bench = Bench()
    bench.connection.turn_away()
    number = 1
    while not bench.connection.is_closing and number < MANY:
        bench.give(frame(Kind.HEADERS, Flag.END_HEADERS, number, HEADERS))
        bench.output()
        number += 2
    assert 900 < number // 2 < 2000


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda number: window_update(number, 0), id="a window that grows by nothing"),
        pytest.param(lambda number: data(b"x", number, 1) + data(b"x", number), id="data after the end"),
    ],
)
def test_calls_that_have_themselves_reset_are_too_many_at_some_point(spoil: Callable[[int], bytes]) -> None:
    """CVE-2025-8671, "MadeYouReset"."""
    bench, number = Bench(), 1
    while not bench.connection.is_closing and number < MANY:
        bench.give(frame(Kind.HEADERS, Flag.END_HEADERS, number, HEADERS) + spoil(number))
        bench.output()
        number += 2
    assert 900 < number // 2 < 2000


def test_settings_that_come_again_in_one_frame_count_once() -> None:
    bench = Bench()
    told = bench.open()
    changes: list[int] = []
    bench.connection._change_windows = changes.append  # type: ignore[method-assign]
    one = Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big")
    values = [value.to_bytes(4, "big") for value in (1, 2, 3)]
    bench.give(frame(Kind.SETTINGS, 0, 0, b"".join(one + value for value in values)))
    assert changes == [3]
    assert told.closed == []


def test_whoever_reads_no_answers_has_no_more_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MOST_WAITING_BYTES", 100)
    bench = Bench()
    bench.give(settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    for number in (1, 3):
        told = bench.open(number, ends=True)
        bench.connection.answer(told.stream, b"\x88", bytes(60), b"\x89")
    bench.output()
    bench.give(frame(Kind.HEADERS, Flag.END_HEADERS, 5, HEADERS))
    assert bench.resets() == [(5, ErrorCode.REFUSED_STREAM)]
    bench.give(window_update(1, 60))
    bench.open(7)
    # What was dropped no longer waits.
    bench.give(rst_stream(3, ErrorCode.CANCEL))
    assert bench.connection._out.waiting_bytes == 0


def test_padded_data_is_not_gathered_beyond_a_header_block() -> None:
    bench = Bench()
    bench.open()
    bench.give((1 << 20).to_bytes(3, "big") + bytes((Kind.DATA, Flag.PADDED)) + (1).to_bytes(4, "big"))
    assert bench.goaway() is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("most", [16 << 10, 128 << 10])
def test_a_header_block_may_be_as_large_as_the_limit(most: int) -> None:
    for parts in (1, 3):
        bench = Bench(max_header_bytes=most)
        block = HEADERS + encode([(b"x", b"y" * (most - 1000))])
        step = -(-len(block) // parts)
        pieces = [block[at : at + step] for at in range(0, len(block), step)]
        for place, piece in enumerate(pieces):
            kind = Kind.CONTINUATION if place else Kind.HEADERS
            bench.give(frame(kind, Flag.END_HEADERS if piece is pieces[-1] else 0, 1, piece))
        assert bench.told[1].block.size <= most


def test_a_header_block_that_goes_on_is_gathered_up_to_twice_the_limit() -> None:
    bench = Bench(max_header_bytes=16 << 10)
    bench.give(frame(Kind.HEADERS, 0, 1, HEADERS))
    for _ in range(4):
        bench.give(frame(Kind.CONTINUATION, 0, 1, bytes(16 << 10)))
    assert bench.goaway() is ErrorCode.ENHANCE_YOUR_CALM


# --- messages ---


def test_empty_messages_that_nobody_asks_for_shrink_the_window() -> None:
    home = Home()
    home.open()
    empty = framed(b"") * 3000
    sent = 0
    while sent < 4 << 20:
        home.send(empty)
        sent += len(empty)
        _, _, resets = home.answers()
        if resets:
            break
    assert resets == [ErrorCode.FLOW_CONTROL_ERROR], "no more than a window beyond what may wait"
    assert sent < 3 << 20


def test_messages_are_unpacked_when_they_are_asked_for() -> None:
    home = Home()
    call = home.open(grpc_encoding="gzip")
    octets = gzip.compress(b"hello")
    home.send((b"\1" + len(octets).to_bytes(4, "big") + octets) * 2, ends=True)
    assert call._unread_bytes < 2 * (len(octets) + 200)
    assert [message.is_packed for message in call._messages] == [True, True]
    found: list[object] = []
    call.read(found.append)
    assert found == [b"hello"]


def test_a_message_that_cannot_be_unpacked_is_told_in_its_turn() -> None:
    home = Home()
    call = home.open(grpc_encoding="gzip")
    good = gzip.compress(b"hello")
    parts = [b"\1" + len(octets).to_bytes(4, "big") + octets for octets in (good, b"garbage", good)]
    home.send(b"".join(parts))
    found: list[object] = []
    call.read(found.append)
    assert (found, call.is_active()) == ([b"hello"], True)
    call.read(found.append)
    assert found == [b"hello", None]
    assert home.answers()[0]["grpc-status"] == str(int(Code.INTERNAL))


def test_a_second_message_of_a_call_that_asks_for_one_is_not_gathered_whole() -> None:
    home = Home()
    home.most_message_bytes = 64 << 20
    call = home.open()
    call.read(lambda _: None)
    home.send(framed(b"first"))
    home.send(framed(b"")[:1] + (64 << 20).to_bytes(4, "big"))
    sent, resets = 0, list[ErrorCode]()
    while sent < 8 << 20 and not resets:
        home.send(bytes(16 << 10))
        sent += 16 << 10
        resets = home.answers()[2]
    assert resets == [ErrorCode.FLOW_CONTROL_ERROR]
    assert sent < 3 << 20


# --- headers ---


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_content_length_beyond_all_numbers_ends_its_call(digits: int) -> None:
    home = Home()
    block = encode([*PSEUDO, (b"content-length", b"9" * digits)])
    home.connection.receive(frame(Kind.HEADERS, 4, 1, block))
    assert home.answers()[2] == [ErrorCode.PROTOCOL_ERROR]
    assert not home.connection.is_closing


def test_long_names_are_not_kept() -> None:
    home = Home()
    home.open(**{"x" * 300: "1"})
    home.open(x_short="1")
    assert b"x-short" in heads._KEYS
    assert b"x" * 300 not in heads._KEYS


def test_a_refusal_with_the_callers_words_in_it_has_a_bounded_length() -> None:
    home = Home()
    call = home.open(grpc_encoding="z" * 6000)
    assert call.refusal is not None
    assert len(call.refusal.sentence.encode()) <= 2048


def test_too_much_metadata_is_told_whatever_follows_it() -> None:
    home = Home()
    pairs = [*PSEUDO, (b"x", b"y" * (17 << 10)), (b"content-type", b"application/grpc")]
    home.connection.receive(frame(Kind.HEADERS, 4, 1, encode(pairs)))
    assert home.answers()[0]["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))


@pytest.mark.parametrize("name", [b":path", b"content-type", b"te", b"x-bin"])
def test_no_value_has_a_line_break_in_it(name: bytes) -> None:
    home = Home()
    pairs = dict([*PSEUDO, (b"content-type", b"application/grpc"), (name, b"a\r\nb")])
    home.connection.receive(frame(Kind.HEADERS, 4, 1, encode([*pairs.items()])))
    assert home.answers()[2] == [ErrorCode.PROTOCOL_ERROR]


def test_trailers_are_looked_at() -> None:
    home = Home()
    home.open()
    home.connection.receive(frame(Kind.HEADERS, 5, 1, encode([(b"x", b"a\nb")])))
    assert home.answers()[2] == [ErrorCode.PROTOCOL_ERROR]
