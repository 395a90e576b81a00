"""One client's connection: its socket, the HTTP/2 spoken on it, and the calls that come of that."""

import random
import select
from collections.abc import Callable
from threading import get_ident
from typing import Final, Protocol

from flyweight.server.settings import ConnectionSettings
from flyweight.server.survival import survive
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.channel import READ_BYTES, Channel
from flyweight.server.wire.connection import Connection, Limits
from flyweight.server.wire.frames import ErrorCode
from flyweight.server.wire.heads import head_of
from flyweight.server.wire.hpack import Block
from flyweight.server.wire.lifetime import Lifetime, Seen, Step
from flyweight.server.wire.streams import Stream

# What a link is told of while it has nothing to send.
READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
# Who sends so much at a time sends a large message; small ones of many callers come to less. And so much is
# worth being waited for: a look at a socket takes as long as copying 100 KB.
_MUCH_BYTES: Final = 32 << 10
# The most that is waited for where nothing else is to be done meanwhile: of more the client would wait, too.
_PIECE_BYTES: Final = 64 << 10
# gRFC A9: the ages of connections differ by so much either way.
_SPREAD: Final = 0.1


class Port(Protocol):
    """What a link needs of the server that it belongs to."""

    limits: Limits
    most_message_bytes: int
    packs: bool
    terms: ConnectionSettings
    # The loop's.
    thread: int
    # The moment at which what is handled now was found, on the clock of time.monotonic().
    now: float

    def on_call(self, call: WireCall, /) -> None:
        """Take a new call."""
        ...

    def bring(self, link: "Link", job: Callable[[], None]) -> None:
        """Bring the loop's thread a job of a link."""
        ...

    def mark(self, link: "Link") -> None:
        """Have what is to be sent sent before the loop waits again."""
        ...

    def is_busy(self) -> bool:
        """Tell whether models run while calls come."""
        ...

    def rest(self, link: "Link") -> float:
        """Have the link `go_on` in a moment; return when."""
        ...

    def watch(self, link: "Link", events: int) -> None:
        """Have the link told of these events of its socket (select.EPOLL*) from now on."""
        ...

    def forget(self, link: "Link") -> None:
        """Note that the link is closing its socket."""
        ...


class Link:
    """One connection. For the loop's thread."""

    __slots__ = (
        "_channel",
        "_expected",
        "_heard_at",
        "_is_blocked",
        "_is_marked",
        "_is_open",
        "_port",
        "_rests_until",
        "_unsent",
        "connection",
        "lifetime",
        "most_message_bytes",
        "number",
        "packs",
    )

    def __init__(self, port: Port, channel: Channel) -> None:
        self._port = port
        self._channel = channel
        self.number = channel.fileno()
        self.most_message_bytes, self.packs = port.most_message_bytes, port.packs
        self.connection = Connection(port.limits, self._accept)
        self._heard_at = port.now
        spread = random.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)  # noqa: S311 - nothing secret
        self.lifetime = Lifetime(port.terms, port.now, spread)
        self._unsent: bytes | memoryview = b""
        self._is_open = True
        self._is_blocked = False
        # How many bytes the socket waits for before it tells of them, and until when.
        self._expected, self._rests_until = 1, 0.0
        # Whether the server knows that there may be something to send.
        self._is_marked = False

    # --- what calls need of it ---

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done by the loop's thread: at once, if that is who asks."""
        port = self._port
        if get_ident() == port.thread:
            job()
            self._mark()
        else:
            port.bring(self, job)

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it."""
        return self._channel.peer()

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        return self._channel.auth_context()

    def _accept(self, stream: Stream, block: Block) -> None:
        head = head_of(block, self._port.limits.max_header_bytes)
        call = stream.listener = WireCall(self, self.connection, stream, head)
        self._port.on_call(call)

    # --- what the loop has it do ---

    def handle(self, event: int) -> None:
        """Go on after an event of the socket."""
        if event & select.EPOLLOUT:
            self.write()
        if event & ~select.EPOLLOUT and self._is_open:
            self.read()

    def read(self) -> None:
        """Take what has come."""
        octets = self._channel.receive()
        if octets is None:
            if self._waits_for_peer():
                self._mark()
            self._expect(1)
            return
        if not octets:
            self.drop()
            return
        self._heard_at = self._port.now
        connection = self.connection
        survive("reading a connection", lambda: connection.receive(octets), lambda _: connection.abandon())
        if connection.has_output or connection.is_closing or self._waits_for_peer():
            self._mark()
        if len(octets) >= _MUCH_BYTES or self._expected > 1:
            # More is on its way, and there is something better to do than to look at each piece of it.
            self._expect(self._certain_bytes() if len(octets) >= _MUCH_BYTES else 1)

    def _certain_bytes(self) -> int:
        """Return how much is worth waiting for: of the message that came last, as long as it is not whole.

        While models run it may be more: whatever comes, they come first.
        """
        connection = self.connection
        stream = connection.streams.get(connection.latest_stream)
        call = stream.listener if stream is not None else None
        if not isinstance(call, WireCall) or not call.missing_bytes:
            return 1
        return READ_BYTES if self._port.is_busy() else min(_PIECE_BYTES, call.missing_bytes)

    def _expect(self, count: int) -> None:
        """Be told of what comes when it is so much, or after a moment."""
        count = count if count >= _MUCH_BYTES else 1
        if count > 1:
            self._rests_until = self._port.rest(self)
        if count != self._expected and self._is_open:
            self._expected = count
            self._channel.expect(count)

    def go_on(self, moment: float) -> None:
        """Take what has come, if it was to be let be until this moment and no longer."""
        if self._is_open and self._expected > 1 and moment == self._rests_until:
            self.read()

    def _mark(self) -> None:
        if not self._is_marked:
            self._is_marked = True
            self._port.mark(self)

    def flush(self) -> None:
        """Send as much as the socket takes; a bug in that ends this connection, and no other."""
        self._is_marked = False
        survive("writing to a connection", self.write, lambda _: self.drop())

    def write(self) -> None:
        """Send as much as the socket takes."""
        connection, channel = self.connection, self._channel
        while self._is_open:
            if not self._unsent:
                if not connection.has_output:
                    break
                # A view: what the socket leaves of it is not copied.
                self._unsent = memoryview(connection.take_output())
            sent = channel.send(self._unsent)
            if sent is None:
                self.drop()
                return
            if not sent:
                self._block(is_blocked=channel.is_full)
                if connection.is_closing:
                    self.lifetime.close(self._port.now)
                return
            self._unsent = self._unsent[sent:]
            connection.note_sent(sent)
        if self._is_blocked:
            self._block(is_blocked=False)
        if connection.is_closing:
            self.drop()

    def drop(self) -> None:
        """Close the socket; what was not sent is lost."""
        if not self._is_open:
            return
        self._is_open = False
        self._port.forget(self)
        self._channel.close()
        self.connection.abandon()

    def sweep(self, now: float) -> None:
        """End the calls whose time is over, and do what the connection's lifetime asks for."""
        connection = self.connection
        for stream in [*connection.streams.values()]:
            if isinstance(stream.listener, WireCall):
                stream.listener.expire(now)
        if now >= self.lifetime.due:
            self._live_on(now)
        if (connection.has_output or connection.is_closing) and self._is_open:
            self._mark()

    def drain(self, now: float) -> None:
        """Ask the client to go elsewhere with its next calls."""
        self.connection.drain()
        self.lifetime.drain(now)
        self.write()

    def end(self, now: float, by: float) -> None:
        """Cut the calls that are open, and close: at `by`, whatever is not sent by then."""
        if self.connection.streams or now >= by:
            self.connection.close(ErrorCode.NO_ERROR)
        else:
            self.connection.turn_away()
        self.lifetime.close(now, by)
        self.write()
        if now >= by:
            self.drop()

    def _live_on(self, now: float) -> None:
        connection = self.connection
        seen = Seen(
            self._heard_at,
            connection.is_greeted,
            len(connection.streams),
            connection.last_stream,
            connection.is_draining,
            bool(self._unsent) or connection.has_output,
        )
        step = self.lifetime.look(now, seen)
        if step is Step.PING:
            connection.ping()
        elif step is Step.DRAIN:
            connection.drain()
        elif step is Step.TURN_AWAY:
            connection.turn_away()
        elif step is Step.CUT:
            connection.close(ErrorCode.NO_ERROR)
        elif step is Step.DROP:
            self.drop()

    def _waits_for_peer(self) -> bool:
        """Return whether there is something to send for which a handshake has to be over first."""
        return bool(self._unsent) and not self._is_blocked

    def _block(self, *, is_blocked: bool) -> None:
        if is_blocked != self._is_blocked:
            self._is_blocked = is_blocked
            self._port.watch(self, READABLE | (select.EPOLLOUT if is_blocked else 0))
