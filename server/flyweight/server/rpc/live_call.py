"""What every call over a network is to the carrier, whichever transport brings it: how it ends, and when."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from flyweight.server.errors import Code
from flyweight.server.rpc.call import CLOCK_SLACK_SECONDS, Body, Failure

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class LiveCall(ABC):
    """One call; a transport's own class adds how it is read and answered.

    What answers it may be called by any thread; all else is for the thread that takes events.

    Attributes:
        path: "/package.Service/Method".
        metadata: the caller's, by lower-case names.
        deadline_monotonic: the caller's deadline on the clock of time.monotonic(); None when it has none.
        leave: is told, before anybody else, when the call is over; for whoever took it.
    """

    __slots__ = ("_code", "_is_over", "_on_over", "deadline_monotonic", "leave", "metadata", "path")

    def __init__(self, path: str, metadata: Metadata, deadline_monotonic: float | None) -> None:
        self.path = path
        self.metadata = metadata
        self.deadline_monotonic = deadline_monotonic
        self._code: Code | None = None
        self._is_over = False
        self._on_over: list[Callable[[], None]] = []
        self.leave: Callable[[LiveCall], None] | None = None

    @property
    def refusal(self) -> Failure | None:
        """Return why the call cannot be answered, if that is known as it comes."""
        return None

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
        """Have a function called, by the thread that takes events, when the call is over."""
        self._on_over.append(callback)

    @abstractmethod
    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it, "ipv4:127.0.0.1:1234"."""

    @abstractmethod
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""

    @abstractmethod
    def read(self, on_message: Callable[[Body | None], None]) -> None:
        """Have the next message given to `on_message`, or None when the caller sends no more."""

    @abstractmethod
    def answer(self, body: bytes) -> None:
        """End a call that has one answer."""

    @abstractmethod
    def begin(self, on_begun: Callable[[bool], None]) -> None:
        """Send the headers of an answer of several messages; tell `on_begun` whether the call still is."""

    @abstractmethod
    def send(self, body: bytes, on_sent: Callable[[bool], None]) -> None:
        """Send one of several messages; the next may be sent when `on_sent` is told."""

    @abstractmethod
    def end(self, failure: Failure | None) -> None:
        """End a call with a status and no message, or no further one."""

    def refuse(self) -> None:
        """Have the caller send it again elsewhere; nothing was done for it.

        Where that cannot be said, it learns by the end of its connection.
        """
        self.count_as(Code.UNAVAILABLE)

    def _be_over(self) -> None:
        """Note that the call is over, by whichever side."""
        self._is_over = True
        if self._code is None:
            # A caller who went away first was told nothing, and one whose time was over told itself.
            deadline = self.deadline_monotonic
            is_late = deadline is not None and deadline - time.monotonic() < CLOCK_SLACK_SECONDS
            self._code = Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED

    def _tell_over(self) -> None:
        # What is called knows this call, which must not keep it: such a circle would wait for the collector.
        leave, self.leave = self.leave, None
        callbacks, self._on_over = self._on_over, []
        if leave is not None:
            leave(self)
        for callback in callbacks:
            callback()
