"""One gRPC call on a stream of a connection: the same to its carrier as a call of gRPC's core."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Body, Failure
from flyweight.server.rpc.live_call import LiveCall
from flyweight.server.wire.connection import Connection
from flyweight.server.wire.frames import ErrorCode, StreamFault
from flyweight.server.wire.heads import HEADERS, HEADERS_GZIP, OK_TRAILERS, Head, http_status, trailers_of
from flyweight.server.wire.messages import (
    PREFIX_BYTES,
    Message,
    MessageReader,
    Refused,
    framed,
    packed,
    prefix_of,
    unpacked,
)
from flyweight.server.wire.streams import Stream

# Messages that were not asked for yet may hold as much before the caller's window is left to shrink.
_MOST_UNREAD_BYTES: Final = 1 << 20
# What one of them takes besides its bytes, so that empty ones count.
_MESSAGE_BYTES: Final = 128

_OnMessage = Callable[[Body | None], None]


class Home(Protocol):
    """Where calls live: a loop, and one socket."""

    most_message_bytes: int
    # Whether answers are packed for those who take that.
    packs: bool

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done by the loop's thread: at once, if that is who asks."""
        ...

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it."""
        ...

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        ...


class WireCall(LiveCall):
    """One call. What answers it may be called by any thread; all else is for the loop's."""

    __slots__ = (
        "_connection",
        "_has_begun",
        "_head",
        "_home",
        "_is_ended",
        "_is_half_closed",
        "_is_handing",
        "_left",
        "_messages",
        "_on_message",
        "_reader",
        "_refusal",
        "_stream",
        "_unread_bytes",
        "_withheld_bytes",
    )

    def __init__(self, home: Home, connection: Connection, stream: Stream, head: Head) -> None:
        timeout = head.timeout_seconds
        super().__init__(head.path, head.metadata, None if timeout is None else time.monotonic() + timeout)
        self._home = home
        self._connection = connection
        self._stream = stream
        self._head = head
        self._left = head.content_length
        self._is_half_closed = self._is_ended = self._is_handing = self._has_begun = False
        self._on_message: _OnMessage | None = None
        self._messages: deque[Message] = deque()
        self._reader: MessageReader | None = None
        # What the caller's next message is answered with, once those before it were asked for.
        self._refusal: Failure | None = None
        self._unread_bytes = self._withheld_bytes = 0

    @property
    def refusal(self) -> Failure | None:
        """Return why the call cannot be answered, if its headers say so."""
        return self._head.refusal

    # --- as a call of the core ---

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
            if self._withheld_bytes:
                self._give_back_withheld()
            if self._messages or self._is_half_closed or self._refusal is not None:
                self._hand_over()

        self._home.do(ask)

    def answer(self, body: bytes) -> None:
        """End a call that has one answer."""
        if self._code is None:
            self._code = Code.OK

        def answer() -> None:
            if self._packs():
                self._connection.answer(self._stream, HEADERS_GZIP, packed(body), OK_TRAILERS)
            else:
                self._connection.answer(self._stream, HEADERS, body, OK_TRAILERS, prefix_of(len(body)))

        self._home.do(answer)

    def begin(self, on_begun: Callable[[bool], None]) -> None:
        """Send the headers of an answer of several messages; tell `on_begun` whether the call still is."""

        def begin() -> None:
            self._has_begun = True
            self._connection.send_headers(self._stream, HEADERS_GZIP if self._packs() else HEADERS)
            on_begun(not self._is_over)

        self._home.do(begin)

    def send(self, body: bytes, on_sent: Callable[[bool], None]) -> None:
        """Send one of several messages; the next may be sent when `on_sent` is told."""

        def send() -> None:
            if self._is_over:
                on_sent(False)  # noqa: FBT003 - as the core tells it
                return
            octets = packed(body) if self._packs() else framed(body)
            self._connection.send_data(self._stream, octets, lambda: on_sent(True))  # noqa: FBT003

        self._home.do(send)

    def end(self, failure: Failure | None) -> None:
        """End a call with a status and no message, or no further one."""
        self.count_as(Code.OK if failure is None else failure.code)

        def end() -> None:
            if not self._is_ended:
                self._is_ended = True
                status = self._head.status
                block = trailers_of(failure, begun=self._has_begun) if status == 200 else http_status(status)
                self._connection.send_trailers(self._stream, block)

        self._home.do(end)

    def _packs(self) -> bool:
        return self._home.packs and self._head.takes_gzip

    @property
    def missing_bytes(self) -> int:
        """How much is to come of a message that has begun."""
        return self._reader.missing_bytes if self._reader is not None else 0

    # --- as the listener of its stream ---

    def on_data(self, payloads: Sequence[memoryview], size: int) -> None:
        """Take bytes of messages (Length-Prefixed-Message)."""
        if self._left is not None:
            self._left -= size
        if (self._unread_bytes or self._reader is not None) and self._has_enough():
            self._withheld_bytes += size
        else:
            self._connection.give_back(self._stream, size)
        if self._refusal is not None:
            return
        payload = payloads[0]
        if self._reader is None and len(payload) == size >= PREFIX_BYTES and not payload[0]:
            # As nearly always: one message, whole, and as it is.
            length = int.from_bytes(payload[1:PREFIX_BYTES], "big")
            if length == size - PREFIX_BYTES <= self._home.most_message_bytes:
                self._take_whole(bytes(payload[PREFIX_BYTES:]))
                return
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._home.most_message_bytes, self._head.window_bits)
        try:
            for message in reader.feed(payloads):
                self._take(message)
                if self._is_over:
                    return
        except Refused as refusal:
            self._refuse(refusal.failure)

    def on_end(self) -> None:
        """Note that the caller sends no more.

        Raises:
            StreamFault: it is not what it said (RFC 9113, section 8.1.1).
        """
        if self._left:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "The data is not as long as its content-length.")
        if self._reader is not None and self._reader.is_within:
            self._refuse(Failure(Code.INTERNAL, "The caller's last message is cut."))
        self._is_half_closed = True
        if self._on_message is not None:
            self._hand_over()

    def on_close(self, code: ErrorCode | None) -> None:  # noqa: ARG002 - a caller's reasons are all the same
        """Note that the stream is over."""
        self._be_over()
        self._is_half_closed = True
        self._messages.clear()
        self._reader = None
        if self._on_message is not None:
            self._hand_over()
        self._tell_over()

    def expire(self, now: float) -> None:
        """End the call if its time is over."""
        deadline = self.deadline_monotonic
        if deadline is not None and now >= deadline and not self._is_ended:
            self.count_as(Code.DEADLINE_EXCEEDED)
            if self._stream.unsent:
                # The status would wait behind what the caller does not read.
                self._connection.reset(self._stream.number, ErrorCode.CANCEL)
            else:
                self.end(Failure(Code.DEADLINE_EXCEEDED, "The call's deadline is over."))

    def refuse(self) -> None:
        """Have the caller send it again elsewhere (RFC 9113, section 8.7); clients do by themselves."""
        super().refuse()

        def refuse() -> None:
            if not self._is_over:
                self._connection.reset(self._stream.number, ErrorCode.REFUSED_STREAM)

        self._home.do(refuse)

    def _refuse(self, failure: Failure) -> None:
        """Answer a message that cannot be taken, in its turn."""
        self._reader, self._refusal = None, failure
        if self._on_message is not None:
            self._hand_over()

    def _take_whole(self, octets: bytes) -> None:
        """Take a message that is not packed: as nearly always, it is waited for."""
        on_message = self._on_message
        if on_message is None or self._messages or self._is_handing:
            self._take(Message(octets))
            return
        self._on_message, self._is_handing = None, True
        try:
            on_message(octets)
        finally:
            self._is_handing = False
        if self._on_message is not None:
            # Whoever asks for the next message meanwhile is answered from here.
            self._hand_over()

    def _take(self, message: Message) -> None:
        """Take a message: to whoever waits for it, or to those that wait to be asked for."""
        self._messages.append(message)
        self._unread_bytes += len(message.octets) + _MESSAGE_BYTES
        if self._on_message is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give messages to whoever asked for one; who asks for the next meanwhile gets it from here, too."""
        if self._is_handing:
            return
        self._is_handing = True
        try:
            while self._on_message is not None:
                message: Body | None = None
                if self._messages:
                    message = self._next()
                    if message is None:
                        continue
                elif self._refusal is not None and not self._is_over:
                    self.end(self._refusal)
                    if not self._is_over:
                        return
                elif not self._is_half_closed:
                    return
                on_message, self._on_message = self._on_message, None
                on_message(message)
        finally:
            self._is_handing = False

    def _next(self) -> Body | None:
        """Take out the first message; None if it cannot be unpacked, and is answered so."""
        octets, is_packed = self._messages.popleft()
        self._unread_bytes -= len(octets) + _MESSAGE_BYTES
        if self._withheld_bytes:
            self._give_back_withheld()
        if not is_packed:
            return octets
        try:
            return unpacked(octets, self._head.window_bits, self._home.most_message_bytes)
        except Refused as refusal:
            self._messages.clear()
            self._reader, self._refusal = None, refusal.failure
            return None

    def _has_enough(self) -> bool:
        """Return whether more came than was asked for, and much of it."""
        gathered = 0 if self._reader is None or self._on_message is not None else self._reader.gathered_bytes
        return self._unread_bytes + gathered > _MOST_UNREAD_BYTES

    def _give_back_withheld(self) -> None:
        if not self._has_enough():
            size, self._withheld_bytes = self._withheld_bytes, 0
            self._connection.give_back(self._stream, size)
