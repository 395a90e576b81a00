"""A connection in any order of events, against the states and windows of RFC 9113 (sections 5.1 and 6.9).

The model knows which streams are open, half-closed or closed, and what each window is worth. Clients do what
is allowed in any order, and at times what is an error of one stream; the connection goes on.
"""

from dataclasses import dataclass
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flyweight.server.wire.connection import Connection
from flyweight.server.wire.frames import ErrorCode, Flag, Kind, Setting
from flyweight.server.wire.hpack import Block, encode
from flyweight.server.wire.streams import Stream
from tests.server.wire.framing import usual
from tests.server.wire.watcher import MOST_STREAMS, Watcher

BLOCK: Final = encode([(name.encode(), value.encode()) for name, value in usual("/s/M")])
TRAILERS: Final = encode([(b"x-trailer", b"1")])
PICKS: Final = st.integers(0, 1000)
SIZES: Final = st.sampled_from([0, 1, 100, 5000, 16_384])


class _Silent:
    """Does nothing by itself: the machine says what the server does, and when."""

    def on_open(self, connection: Connection, stream: Stream, block: Block) -> None: ...
    def on_data(self, connection: Connection, stream: Stream, payload: bytes) -> None: ...
    def on_end(self, connection: Connection, stream: Stream) -> None: ...


@dataclass
class Model:
    """One stream as both ends should see it."""

    given_bytes: int = 0
    # What was handed to the server to send, and whether it is to be ended after that.
    due_bytes: int = 0
    is_half_closed: bool = False
    has_trailers: bool = False


class ConnectionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.watcher = Watcher(_Silent())
        self.open: dict[int, Model] = {}
        self.closed: dict[int, Model] = {}
        self.last = -1
        self.reset_by_client: set[int] = set()

    @property
    def connection(self) -> Connection:
        return self.watcher.connection

    def _pick(self, pick: int) -> tuple[int, Model]:
        number = sorted(self.open)[pick % len(self.open)]
        return number, self.open[number]

    def _settle(self) -> None:
        """Move streams to the closed ones that both sides ended."""
        for number, model in [*self.open.items()]:
            if model.has_trailers and number in self.watcher.ended:
                self.closed[number] = self.open.pop(number)

    # --- the client ---

    @rule(ends=st.booleans(), skips=st.integers(0, 2))
    def opens(self, ends: bool, skips: int) -> None:
        self.last = number = self.last + 2 + 2 * skips
        flags = Flag.END_HEADERS | (Flag.END_STREAM if ends else 0)
        is_refused = len(self.open) >= MOST_STREAMS
        self.watcher.give_frame(Kind.HEADERS, flags, number, BLOCK)
        if is_refused:
            assert self.watcher.ended[number] is ErrorCode.REFUSED_STREAM
            assert number not in self.watcher.heard
            return
        self.open[number] = Model(is_half_closed=ends)
        assert self.watcher.heard[number].is_ended is ends

    @precondition(lambda self: any(not model.is_half_closed for model in self.open.values()))
    @rule(pick=PICKS, size=SIZES, ends=st.booleans())
    def sends_data(self, pick: int, size: int, ends: bool) -> None:
        numbers = sorted(number for number, model in self.open.items() if not model.is_half_closed)
        number = numbers[pick % len(numbers)]
        model, heard = self.open[number], self.watcher.heard[number]
        before = heard.data_bytes
        self.watcher.give_frame(Kind.DATA, Flag.END_STREAM if ends else 0, number, bytes(size))
        assert heard.data_bytes == before + size
        model.is_half_closed = ends
        assert heard.is_ended is ends
        # The server reads at once.
        self.watcher.act(lambda connection: connection.give_back(connection.streams[number], size))

    @precondition(lambda self: any(not model.is_half_closed for model in self.open.values()))
    @rule(pick=PICKS)
    def sends_trailers(self, pick: int) -> None:
        numbers = sorted(number for number, model in self.open.items() if not model.is_half_closed)
        number = numbers[pick % len(numbers)]
        self.watcher.give_frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, number, TRAILERS)
        self.open[number].is_half_closed = True
        assert self.watcher.heard[number].is_ended

    @precondition(lambda self: any(model.is_half_closed for model in self.open.values()))
    @rule(pick=PICKS)
    def sends_data_after_its_end(self, pick: int) -> None:
        """Section 5.1, half-closed (remote): a stream error of type STREAM_CLOSED."""
        numbers = sorted(number for number, model in self.open.items() if model.is_half_closed)
        number = numbers[pick % len(numbers)]
        self.watcher.give_frame(Kind.DATA, 0, number, b"late")
        assert self.watcher.ended[number] is ErrorCode.STREAM_CLOSED
        self.closed[number] = self.open.pop(number)

    @precondition(lambda self: self.open)
    @rule(pick=PICKS, credit=st.integers(1, 100_000))
    def opens_a_window(self, pick: int, credit: int) -> None:
        number, _ = self._pick(pick)
        self.watcher.give_frame(Kind.WINDOW_UPDATE, 0, number, credit.to_bytes(4, "big"))
        self._settle()

    @rule(credit=st.integers(1, 200_000))
    def opens_the_connections_window(self, credit: int) -> None:
        self.watcher.give_frame(Kind.WINDOW_UPDATE, 0, 0, credit.to_bytes(4, "big"))
        self._settle()

    @rule(window=st.sampled_from([0, 1, 500, 65_535, 1 << 20]), largest=st.sampled_from([16_384, 70_000]))
    def changes_settings(self, window: int, largest: int) -> None:
        pairs = ((Setting.INITIAL_WINDOW_SIZE, window), (Setting.MAX_FRAME_SIZE, largest))
        payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
        self.watcher.give_frame(Kind.SETTINGS, 0, 0, payload)
        self._settle()

    @precondition(lambda self: self.open)
    @rule(pick=PICKS)
    def resets(self, pick: int) -> None:
        number, model = self._pick(pick)
        self.watcher.give_frame(Kind.RST_STREAM, 0, number, ErrorCode.CANCEL.to_bytes(4, "big"))
        assert self.watcher.heard[number].is_closed
        assert self.watcher.heard[number].code is ErrorCode.CANCEL
        del self.open[number]
        self.closed[number] = model
        self.reset_by_client.add(number)

    @precondition(lambda self: self.closed)
    @rule(pick=PICKS, what=st.sampled_from([Kind.WINDOW_UPDATE, Kind.RST_STREAM, Kind.PRIORITY]))
    def sends_what_may_come_late(self, pick: int, what: int) -> None:
        """Section 5.1, closed: these are passed over."""
        number = sorted(self.closed)[pick % len(self.closed)]
        payload = bytes(5) if what == Kind.PRIORITY else (8).to_bytes(4, "big")
        before = dict(self.watcher.ended)
        self.watcher.give_frame(what, 0, number, payload)
        assert self.watcher.ended == before

    # --- the server ---

    @precondition(lambda self: any(not model.has_trailers for model in self.open.values()))
    @rule(
        pick=PICKS,
        size=st.sampled_from([0, 10, 9000, 20_000, 200_000]),
        ends=st.booleans(),
        at_once=st.booleans(),
    )
    def answers(self, pick: int, size: int, ends: bool, at_once: bool) -> None:
        numbers = sorted(number for number, model in self.open.items() if not model.has_trailers)
        number = numbers[pick % len(numbers)]
        model = self.open[number]
        is_whole = ends and at_once and not model.due_bytes

        def act(connection: Connection) -> None:
            stream = connection.streams[number]
            if is_whole:
                connection.answer(stream, b"\x88", bytes(size), b"\x89")
                return
            connection.send_data(stream, bytes(size), lambda: None)
            if ends:
                connection.send_trailers(stream, b"\x89")

        model.due_bytes += size
        model.has_trailers = ends
        self.watcher.act(act)
        self._settle()

    @precondition(lambda self: self.open)
    @rule(pick=PICKS)
    def gives_up(self, pick: int) -> None:
        number, _ = self._pick(pick)
        self.watcher.act(lambda connection: connection.reset(number, ErrorCode.INTERNAL_ERROR))
        self.closed[number] = self.open.pop(number)

    # --- always ---

    @invariant()
    def the_connection_goes_on(self) -> None:
        assert not self.connection.is_closing
        assert set(self.connection.streams) == set(self.open)

    @invariant()
    def what_can_be_sent_is_sent(self) -> None:
        """No stream waits without a reason: one of its two windows is used up, or all of it was sent."""
        windows = self.watcher.windows
        for number, model in self.open.items():
            left = model.due_bytes - self.watcher.sent_bytes.get(number, 0)
            assert left >= 0
            assert not left or windows[0] <= 0 or windows[number] <= 0, "section 6.9"
            assert left or not model.has_trailers or windows[0] <= 0

    @invariant()
    def windows_are_the_same_on_both_ends(self) -> None:
        assert self.connection._out.window == self.watcher.windows[0]
        for number, stream in self.connection.streams.items():
            assert stream.send_window == self.watcher.windows[number]

    @invariant()
    def ends_are_told_once_and_truly(self) -> None:
        for number, heard in self.watcher.heard.items():
            assert heard.is_closed is (number not in self.open)
        for number, model in self.closed.items():
            if (
                model.has_trailers
                and number not in self.reset_by_client
                and self.watcher.ended[number] is None
            ):
                assert self.watcher.sent_bytes.get(number, 0) == model.due_bytes


TestConnectionMachine = ConnectionMachine.TestCase
TestConnectionMachine.settings = settings(max_examples=150, stateful_step_count=50)
