"""What is asked of a client of another stack, and what it heard: the same for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# Far more than any call needs, and less than a test may take.
PATIENCE_SECONDS: Final = 60.0
# Calls that a client has under way at one time.
AT_ONCE: Final = 200
INFERENCE: Final = "/inference.GRPCInferenceService"

Metadata = Sequence[tuple[str, str | bytes]]
# Is told, as each message of an answer comes, which ask it answers.
OnBody = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """One call.

    Attributes:
        path: "/package.Service/Method".
        bodies: the messages, one unless `is_stream`; after the last the client closes its side.
        is_stream: whether both sides may send any number of messages.
        metadata: values of names that end in "-bin" are bytes.
        timeout_seconds: the deadline.
        is_packed: whether messages are sent as gzip.
        is_in_turns: whether a message is sent only when the one before was answered.
        cancel_after: the client cancels when it heard so many messages.
    """

    path: str
    bodies: tuple[bytes, ...] = (b"",)
    is_stream: bool = False
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout_seconds: float = PATIENCE_SECONDS
    is_packed: bool = False
    is_in_turns: bool = False
    cancel_after: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: the status, its message, the messages, and the trailing metadata."""

    code: int
    sentence: str
    bodies: tuple[bytes, ...]
    trailers: Metadata


class Client(Protocol):
    """A client library, or a program, behind which calls look alike."""

    # Whether it can send messages as gzip.
    packs: bool

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ...) -> list[Outcome]:
        """Have all asked on one connection of its own, `AT_ONCE` at one time; return what came of each."""
        ...


def ignore(_index: int) -> None:
    """Stand in for who wants to know of messages as they come."""


async def ask_together(
    asks: Sequence[Ask], ask_one: Callable[[int, Ask], Awaitable[Outcome]]
) -> list[Outcome]:
    """Have all asked in this loop, `AT_ONCE` at one time; return what came of each."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(index: int, one: Ask) -> Outcome:
        async with places:
            return await ask_one(index, one)

    return list(await asyncio.gather(*(ask(*each) for each in enumerate(asks))))
