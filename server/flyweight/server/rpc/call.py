"""What a handler knows of the call it answers, and what a carrier gets back; no transport's library in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flyweight.server.errors import Code


def _ignore(callback: Callable[[], None]) -> None:
    """Stand in where a call cannot end early."""


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one RPC.

    `deadline_monotonic` is on the clock of time.monotonic(), in seconds; None when the caller set none.
    `metadata` has lower-case names. `is_active` says whether the caller still waits, and `on_end` has a
    function called once the call is over, perhaps in another thread; one given after the end may be dropped,
    so ask `is_active` after registering.
    """

    deadline_monotonic: float | None = None
    metadata: Sequence[tuple[str, str | bytes]] = ()
    is_active: Callable[[], bool] = lambda: True
    on_end: Callable[[Callable[[], None]], object] = _ignore

    def metadata_value(self, name: str) -> str | None:
        """Return the first textual value of the metadata entry `name`; None when there is none."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return None


@dataclass(frozen=True, slots=True)
class Failure:
    """The status that a call ends with when it gets no response, and its trailing metadata."""

    code: Code
    sentence: str
    trailing_metadata: tuple[tuple[str, str], ...] = field(default=())


class Handler(Protocol):
    """Answers one unary RPC: the request message's bytes in, the response message's bytes out.

    Raises:
        FlyweightError: an expected failure; `errors.code_of` knows its status.
    """

    def __call__(self, body: bytes, call: Call, /) -> bytes:
        """Answer the request message whose bytes are `body`."""
        ...
