"""One stream of a connection, and who answers on it (RFC 9113, section 5)."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from flyweight.server.wire.frames import ErrorCode

# What a stream may send before it is read: an image of 224 x 224 in one go, were it not for the connection.
STREAM_WINDOW: Final = 1 << 20


class Listener(Protocol):
    """Who answers on a stream."""

    def on_data(self, payloads: Sequence[memoryview], size: int) -> None:
        """Take `size` bytes, in order; they are valid during the call only.

        Raises:
            StreamFault: they cannot be.
        """
        ...

    def on_end(self) -> None:
        """Note that the caller sends no more.

        Raises:
            StreamFault: what it sent cannot be all.
        """
        ...

    def on_close(self, code: ErrorCode | None) -> None:
        """Note that the stream is over, by both sides or by a reset; told once."""
        ...


class Stream:
    """One stream: what is left of its windows, and what waits for them."""

    __slots__ = (
        "is_closed",
        "is_ended_there",
        "listener",
        "number",
        "owed",
        "receive_window",
        "send_window",
        "trailers",
        "unsent",
    )

    def __init__(self, number: int, send_window: int) -> None:
        self.number = number
        self.send_window = send_window
        self.receive_window = STREAM_WINDOW
        # Bytes that were taken and are not given back to the caller's window yet.
        self.owed = 0
        self.is_ended_there = self.is_closed = False
        self.unsent: deque[tuple[memoryview, Callable[[], None] | None]] = deque()
        self.trailers: bytes | None = None
        self.listener: Listener | None = None
