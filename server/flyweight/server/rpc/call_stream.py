"""A streaming RPC over a call: messages in when they are asked for, messages out one after the other."""

import threading
from collections import deque
from functools import partial
from typing import Final

from flyweight.server.rpc.border import attempt
from flyweight.server.rpc.call import Body, Failure, StreamReader, Wording
from flyweight.server.rpc.live_call import LiveCall

# Messages that wait for a caller who does not read before no more is read of what that caller sends: the
# answers to a batch.
_MOST_UNSENT: Final = 32


class CallStream:
    """The carrier's end of one streaming RPC; see `rpc.call.Stream`.

    What is not sent yet waits here, and while much of it does, nothing is read: a caller who does not read
    holds no more memory than that and what is under way.
    """

    def __init__(self, call: LiveCall, wording: Wording) -> None:
        self._call = call
        self._wording = wording
        self._reader: StreamReader | None = None
        self._lock = threading.Lock()
        self._outgoing: deque[bytes] = deque()
        # A call takes one message at a time; the headers count as one.
        self._is_sending = True
        self._is_over = False
        self._holds_read = False
        self._ending: tuple[Failure | None] | None = None
        call.on_over(self._forget_reader)
        call.begin(self._sent)

    def attach(self, reader: StreamReader) -> None:
        """Say who takes the messages, before any is asked for."""
        self._reader = reader

    def read(self) -> None:
        """Ask for the next message, now or once few wait to be sent."""
        with self._lock:
            self._holds_read = len(self._outgoing) >= _MOST_UNSENT
            if self._holds_read:
                return
        self._call.read(self._received)

    def send(self, body: bytes) -> None:
        """Send a message, or let it wait for those before it."""
        with self._lock:
            if self._is_over or self._ending is not None:
                return
            if self._is_sending:
                self._outgoing.append(body)
                return
            self._is_sending = True
        self._call.send(body, self._sent)

    def finish(self, failure: Failure | None = None) -> None:
        """End the RPC once everything was sent; the first who says so counts."""
        with self._lock:
            if self._is_over or self._ending is not None:
                return
            failure = None if failure is None else self._wording(failure)
            self._ending = (failure,)
            if self._is_sending:
                return
            self._is_over = True
        self._call.end(failure)

    def _received(self, body: Body | None) -> None:
        reader = self._reader
        if reader is None:
            return
        result = attempt(reader.on_half_close if body is None else partial(reader.on_message, body))
        if isinstance(result, Failure):
            self.finish(result)

    def _forget_reader(self) -> None:
        # It knows this stream: a circle of both would keep the call, and all that the core holds for it.
        self._reader = None

    def _sent(self, is_alive: bool) -> None:  # noqa: FBT001 - the core's word on a batch
        with self._lock:
            if not is_alive:
                self._is_over = True
                self._outgoing.clear()
            if self._is_over:
                return
            reads = self._holds_read and len(self._outgoing) <= _MOST_UNSENT
            self._holds_read = self._holds_read and not reads
            if self._outgoing:
                body = self._outgoing.popleft()
            else:
                self._is_sending = False
                if self._ending is None:
                    return
                body, self._is_over = None, True
        if body is not None:
            self._call.send(body, self._sent)
        elif self._ending is not None:
            self._call.end(self._ending[0])
        if reads:
            self._call.read(self._received)
