"""Rules of RFC 9113 beside the tables of test_connection.py; the numbers are its sections."""

import pytest
from hpack import Encoder

from flyweight.server.wire.connection import Connection
from flyweight.server.wire.frames import ErrorCode, Flag, Kind, Setting
from flyweight.server.wire.hpack import Block
from flyweight.server.wire.streams import Stream
from tests.server.wire.framing import usual
from tests.server.wire.watcher import Watcher

BLOCK = Encoder().encode(usual("/s/M"))
END = Flag.END_HEADERS | Flag.END_STREAM
ACTIVE = 1 << 20


class Silent:
    def on_open(self, connection: Connection, stream: Stream, block: Block) -> None: ...
    def on_data(self, connection: Connection, stream: Stream, payload: bytes) -> None: ...
    def on_end(self, connection: Connection, stream: Stream) -> None: ...


@pytest.fixture
def watcher() -> Watcher:
    return Watcher(Silent())


def ended_by(watcher: Watcher) -> ErrorCode | None:
    return watcher.goaways[-1][1] if watcher.goaways else None


@pytest.mark.parametrize(
    ("kind", "flags", "number", "payload"),
    [
        pytest.param(Kind.PING, 0x16, 0, bytes(8), id="flags of a ping"),
        pytest.param(Kind.DATA, 0x16, 1, b"data", id="flags of data"),
        pytest.param(Kind.PING, 0, 0x80000000, bytes(8), id="the reserved bit of a ping"),
        pytest.param(Kind.DATA, 0, 0x80000001, b"data", id="the reserved bit of data"),
    ],
)
def test_undefined_bits_mean_nothing(
    watcher: Watcher, kind: int, flags: int, number: int, payload: bytes
) -> None:
    """4.1: flags that are not defined for a kind, and the bit before the stream's number, are ignored."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
    watcher.give_frame(kind, flags, number, payload)
    assert ended_by(watcher) is None
    assert watcher.heard[1].data_bytes == (4 if kind == Kind.DATA else 0)


def test_numbers_that_were_passed_over_are_closed(watcher: Watcher) -> None:
    """5.1.1: the first use of a number closes all idle ones below it."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 7, BLOCK)
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 3, BLOCK)
    assert ended_by(watcher) is ErrorCode.STREAM_CLOSED


def test_a_stream_is_open_for_what_is_no_data_after_its_end(watcher: Watcher) -> None:
    """5.1, half-closed (remote): WINDOW_UPDATE, PRIORITY and RST_STREAM may still come."""
    watcher.give_frame(Kind.HEADERS, END, 1, BLOCK)
    watcher.give_frame(Kind.WINDOW_UPDATE, 0, 1, (5).to_bytes(4, "big"))
    watcher.give_frame(Kind.PRIORITY, 0, 1, bytes(5))
    assert not watcher.ended
    watcher.give_frame(Kind.RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4, "big"))
    assert watcher.heard[1].code is ErrorCode.CANCEL


@pytest.mark.parametrize("code", [0, 13, 14, 0xFFFFFFFF])
def test_unknown_reasons_end_a_stream_as_known_ones_do(watcher: Watcher, code: int) -> None:
    """7: an error code that nobody knows has no special behaviour."""
    watcher.give_frame(Kind.HEADERS, END, 1, BLOCK)
    watcher.give_frame(Kind.RST_STREAM, 0, 1, code.to_bytes(4, "big"))
    assert watcher.heard[1].is_closed
    assert ended_by(watcher) is None


def test_a_reset_is_not_answered_by_a_reset(watcher: Watcher) -> None:
    """5.4.2."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
    for _ in range(2):
        watcher.give_frame(Kind.RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4, "big"))
    assert not watcher.ended


def test_padding_counts_for_the_windows(watcher: Watcher) -> None:
    """6.9.1: the whole payload of DATA does, and comes back though nobody reads it."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
    stream = watcher.connection.streams[1]
    watcher.give_frame(Kind.DATA, Flag.PADDED, 1, b"\x09ten bytes." + bytes(9))
    assert stream.receive_window == ACTIVE - 20
    assert (watcher.heard[1].data_bytes, stream.owed) == (10, 10)


def test_the_window_of_all_streams_is_not_passed(watcher: Watcher) -> None:
    """6.9.1: who sends more than all streams may is cut off."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
    watcher.connection._receive_window = 99
    watcher.give_frame(Kind.DATA, 0, 1, bytes(100))
    assert ended_by(watcher) is ErrorCode.FLOW_CONTROL_ERROR


def test_settings_take_effect_in_their_order(watcher: Watcher) -> None:
    """6.5.3: values are processed in the order in which they come; the last of two counts."""
    payload = b"".join(
        Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + value.to_bytes(4, "big") for value in (900, 5)
    )
    watcher.give_frame(Kind.SETTINGS, 0, 0, payload)
    watcher.give_frame(Kind.HEADERS, END, 1, BLOCK)
    watcher.act(lambda connection: connection.answer(connection.streams[1], b"\x88", bytes(9), b"\x89"))
    assert watcher.sent_bytes == {1: 5}


def test_nothing_is_sent_beyond_the_last_of_both_windows(watcher: Watcher) -> None:
    """6.9: the sender waits for both, and goes on when the one that was missing opens."""
    watcher.give_frame(Kind.HEADERS, END, 1, BLOCK)
    watcher.give_frame(Kind.WINDOW_UPDATE, 0, 1, (1 << 20).to_bytes(4, "big"))
    watcher.act(lambda connection: connection.answer(connection.streams[1], b"\x88", bytes(70_000), b"\x89"))
    assert watcher.sent_bytes == {1: 65_535}
    watcher.give_frame(Kind.WINDOW_UPDATE, 0, 0, (70_000).to_bytes(4, "big"))
    assert watcher.sent_bytes == {1: 70_000}
    assert watcher.ended == {1: None}


def test_a_block_is_read_though_its_stream_is_refused(watcher: Watcher) -> None:
    """4.3: what a refused block puts into the table is there for the next."""
    encoder = Encoder()
    for number in range(1, 19, 2):
        watcher.give_frame(Kind.HEADERS, END, number, encoder.encode(usual("/s/M")))
    assert watcher.ended == {17: ErrorCode.REFUSED_STREAM}
    block = encoder.encode((*usual("/s/M"), ("x-a", "1")))
    watcher.give_frame(Kind.HEADERS, END, 19, block)
    watcher.act(lambda connection: connection.reset(1, ErrorCode.CANCEL))
    watcher.give_frame(Kind.HEADERS, END, 21, encoder.encode((*usual("/s/M"), ("x-a", "1"))))
    assert watcher.heard.keys() >= {21}
    assert ended_by(watcher) is None


def test_trailers_have_no_pseudo_fields(watcher: Watcher) -> None:
    """8.1: a malformed request, which is an error of its stream."""
    watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
    watcher.give_frame(Kind.HEADERS, END, 1, Encoder().encode([(":path", "/")]))
    assert watcher.ended == {1: ErrorCode.PROTOCOL_ERROR}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_clients_do_not_promise(watcher: Watcher, number: int) -> None:
    """8.4: only servers push."""
    watcher.give_frame(Kind.PUSH_PROMISE, Flag.END_HEADERS, number, (2).to_bytes(4, "big") + BLOCK)
    assert ended_by(watcher) is ErrorCode.PROTOCOL_ERROR


def test_a_priority_of_the_wrong_size_resets_nothing_that_is_not_open(watcher: Watcher) -> None:
    """6.3 and 6.4: an idle stream is never reset."""
    watcher.give_frame(Kind.PRIORITY, 0, 1, bytes(4))
    assert not watcher.ended


def test_what_ends_from_within_a_message_that_was_sent_ends_once(watcher: Watcher) -> None:
    """5.1: nothing follows END_STREAM."""
    watcher.give_frame(Kind.HEADERS, END, 1, BLOCK)

    def answer(connection: Connection) -> None:
        stream = connection.streams[1]
        connection.send_data(stream, b"last", lambda: connection.send_trailers(stream, b"\x89"))

    watcher.act(answer)
    assert watcher.ended == {1: None}
