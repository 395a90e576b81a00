"""One gRPC call on a stream of a connection: the same to its carrier as a call of gRPC's core."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from flyweight.server.errors import Code
from flyweight.server.rpc.call import CLOCK_SLACK_SECONDS, Failure
from flyweight.server.wire.connection import Connection, Stream
from flyweight.server.wire.frames import ErrorCode
from flyweight.server.wire.heads import (
    HEADERS,
    OK_TRAILERS,
    PREFIX_BYTES,
    Head,
    framed,
    http_status,
    too_large,
    trailers_of,
    unpacked,
)

# Messages that were not asked for yet may hold as much before the caller's window is left to shrink.
_MOST_UNREAD_BYTES: Final = 1 << 20

_OnMessage = Callable[[bytes | None], None]


class Home(Protocol):
    """Where calls live: a loop, and one socket."""

    most_message_bytes: int

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done by the loop's thread: at once, if that is who asks."""
        ...

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it."""
        ...

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        ...


class WireCall:
    """One call. What answers it may be called by any thread; all else is for the loop's."""

    __slots__ = (
        "_code",
        "_connection",
        "_deadline",
        "_has_begun",
        "_head",
        "_home",
        "_is_ended",
        "_is_half_closed",
        "_is_handing",
        "_is_over",
        "_messages",
        "_needed_bytes",
        "_on_message",
        "_on_over",
        "_partial",
        "_stream",
        "_unread_bytes",
        "_withheld_bytes",
        "metadata",
        "path",
    )

    def __init__(self, home: Home, connection: Connection, stream: Stream, head: Head) -> None:
        self._home = home
        self._connection = connection
        self._stream = stream
        self._head = head
        self.path = head.path
        self.metadata = head.metadata
        timeout = head.timeout_seconds
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._code: Code | None = None
        self._is_over = self._is_half_closed = self._is_ended = self._is_handing = False
        self._has_begun = False
        self._on_over: list[Callable[[], None]] = []
        self._on_message: _OnMessage | None = None
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._needed_bytes = self._unread_bytes = self._withheld_bytes = 0

    # --- as a call of the core ---

    @property
    def code(self) -> Code:
        """Return what the call ended with, whoever ended it; CANCELLED while nobody did."""
        return Code.CANCELLED if self._code is None else self._code

    def count_as(self, code: Code) -> None:
        """Say what the call ends with, for whoever asks for `code`; the first to say so counts."""
        if self._code is None:
            self._code = code

    def is_active(self) -> bool:
        """Tell whether the caller still waits: it neither has its answer nor is gone."""
        return not self._is_over

    def on_over(self, callback: Callable[[], None]) -> None:
        """Have a function called, by the loop's thread, when the call is over."""
        self._on_over.append(callback)

    def deadline_monotonic(self) -> float | None:
        """Return the caller's deadline on the clock of time.monotonic(); None when it has none."""
        return self._deadline

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it, "ipv4:127.0.0.1:1234"."""
        return self._home.peer()

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        return self._home.auth_context()

    def read(self, on_message: _OnMessage) -> None:
        """Have the next message given to `on_message`, or None when the caller sends no more."""

        def ask() -> None:
            self._on_message = on_message
            self._hand_over()

        self._home.do(ask)

    def answer(self, body: bytes) -> None:
        """End a call that has one answer."""
        self.count_as(Code.OK)
        self._home.do(lambda: self._connection.answer(self._stream, HEADERS, framed(body), OK_TRAILERS))

    def begin(self, on_begun: Callable[[bool], None]) -> None:
        """Send the headers of an answer of several messages; tell `on_begun` whether the call still is."""

        def begin() -> None:
            self._has_begun = True
            self._connection.send_headers(self._stream, HEADERS)
            on_begun(not self._is_over)

        self._home.do(begin)

    def send(self, body: bytes, on_sent: Callable[[bool], None]) -> None:
        """Send one of several messages; the next may be sent when `on_sent` is told."""

        def send() -> None:
            if self._is_over:
                on_sent(False)  # noqa: FBT003 - as the core tells it
            else:
                self._connection.send_data(self._stream, framed(body), lambda: on_sent(True))  # noqa: FBT003

        self._home.do(send)

    def end(self, failure: Failure | None, *, begun: bool = False) -> None:  # noqa: ARG002 - known here
        """End a call with a status and no message; `begun` says that headers were sent, to the core."""
        self.count_as(Code.OK if failure is None else failure.code)

        def end() -> None:
            if not self._is_ended:
                self._is_ended = True
                self._connection.send_trailers(self._stream, trailers_of(failure, begun=self._has_begun))

        self._home.do(end)

    # --- as the listener of its stream ---

    def on_data(self, payload: memoryview) -> None:
        """Take bytes of messages (Length-Prefixed-Message)."""
        size = len(payload)
        if self._unread_bytes > _MOST_UNREAD_BYTES:
            self._withheld_bytes += size
        else:
            self._connection.give_back(self._stream, size)
        if self._partial:
            self._partial += payload
            if len(self._partial) < self._needed_bytes:
                return
            octets, self._partial = bytes(self._partial), bytearray()
        else:
            octets = bytes(payload)
        at, needed = 0, PREFIX_BYTES
        while len(octets) - at >= PREFIX_BYTES:
            length = int.from_bytes(octets[at + 1 : at + PREFIX_BYTES], "big")
            if length > self._home.most_message_bytes:
                self._refuse(too_large(self._home.most_message_bytes))
                return
            following = at + PREFIX_BYTES + length
            if following > len(octets):
                needed += length
                break
            self._take(octets[at], octets[at + PREFIX_BYTES : following])
            if self._is_ended:
                return
            at = following
        if at < len(octets):
            # Gathered in place: what has come of a message is not copied again with each frame of it.
            self._partial, self._needed_bytes = bytearray(octets[at:]), needed
        self._hand_over()

    def on_end(self) -> None:
        """Note that the caller sends no more."""
        if self._partial:
            self._refuse(Failure(Code.INTERNAL, "The caller's last message is cut."))
            return
        self._is_half_closed = True
        self._hand_over()

    def on_close(self, code: ErrorCode | None) -> None:  # noqa: ARG002 - a caller's reasons are all the same
        """Note that the stream is over."""
        self._is_over = True
        # A caller who went away first was told nothing, and one whose time was over told itself.
        self.count_as(Code.DEADLINE_EXCEEDED if self._is_late() else Code.CANCELLED)
        self._is_half_closed = True
        self._messages.clear()
        self._partial = bytearray()
        self._hand_over()
        callbacks, self._on_over = self._on_over, []
        for callback in callbacks:
            callback()

    def _is_late(self) -> bool:
        return self._deadline is not None and self._deadline - time.monotonic() < CLOCK_SLACK_SECONDS

    def expire(self, now: float) -> None:
        """End the call if its time is over."""
        if self._deadline is not None and now >= self._deadline and not self._is_ended:
            self.count_as(Code.DEADLINE_EXCEEDED)
            if self._stream.unsent:
                # The status would wait behind what the caller does not read.
                self._connection.reset(self._stream.number, ErrorCode.CANCEL)
            else:
                self.end(Failure(Code.DEADLINE_EXCEEDED, "The call's deadline is over."))

    def refuse_as_http(self, status: int) -> None:
        """Answer what is no gRPC call."""
        self.count_as(Code.UNKNOWN)
        self._is_ended = True
        self._connection.send_trailers(self._stream, http_status(status))

    def _take(self, flag: int, octets: bytes) -> None:
        if flag:
            if not self._head.window_bits or flag != 1:
                self._refuse(Failure(Code.INTERNAL, "A message is packed, and the call does not say how."))
                return
            found = unpacked(octets, self._head.window_bits, self._home.most_message_bytes)
            if isinstance(found, Failure):
                self._refuse(found)
                return
            octets = found
        self._messages.append(octets)
        self._unread_bytes += len(octets)

    def _refuse(self, failure: Failure) -> None:
        self._messages.clear()
        self._partial = bytearray()
        self.end(failure)

    def _hand_over(self) -> None:
        """Give messages to whoever asked for one; who asks for the next meanwhile gets it from here, too."""
        if self._is_handing:
            return
        self._is_handing = True
        try:
            while self._on_message is not None:
                if self._messages:
                    message: bytes | None = self._messages.popleft()
                    self._unread_bytes -= len(message or b"")
                    self._give_back_withheld()
                elif self._is_half_closed:
                    message = None
                else:
                    return
                on_message, self._on_message = self._on_message, None
                on_message(message)
        finally:
            self._is_handing = False

    def _give_back_withheld(self) -> None:
        if self._withheld_bytes and self._unread_bytes <= _MOST_UNREAD_BYTES:
            size, self._withheld_bytes = self._withheld_bytes, 0
            self._connection.give_back(self._stream, size)
