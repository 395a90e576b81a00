"""What a handler knows of the call it answers, and what a carrier gets back; no transport's library in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from flyweight.protos.errors import FlyweightError
from flyweight.server.errors import Code
from flyweight.server.rpc.records import NOBODY, Answerer
from flyweight.server.security.callers import ANYBODY, Caller

# The transport and the caller end a call by clocks of their own, a little before ours: what ends with so
# little time left is still the deadline's doing.
CLOCK_SLACK_SECONDS: Final = 0.01


def _ignore(callback: Callable[[], None]) -> None:
    """Stand in where a call cannot end early."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the connection.

    `address` is "host:port", as in a URL; `certificate_names` are the names in the client's certificate once
    it was verified: none without TLS, or without a certificate.
    """

    address: str = ""
    certificate_names: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The address without the port, which changes with every connection."""
        return self.address.rpartition(":")[0] or self.address


@dataclass(slots=True, eq=False)
class Call:
    """The circumstances of one RPC.

    `deadline_monotonic` is on the clock of time.monotonic(), in seconds; None when the caller set none.
    `metadata` has lower-case names. `is_active` says whether the caller still waits, and `on_end` has a
    function called once the call is over, perhaps in another thread; one given after the end may be dropped,
    so ask `is_active` after registering. `peer` tells who is at the other end, and is asked only when that
    matters. `caller` is whoever the server knows it to be from. What is learnt as it is answered is noted in
    `answerer` and `request_id`.
    """

    deadline_monotonic: float | None = None
    metadata: Sequence[tuple[str, str | bytes]] = ()
    is_active: Callable[[], bool] = lambda: True
    on_end: Callable[[Callable[[], None]], object] = _ignore
    peer: Callable[[], Peer] = Peer
    caller: Caller = ANYBODY
    answerer: Answerer = NOBODY
    request_id: str = ""

    def metadata_value(self, name: str) -> str | None:
        """Return the first textual value of the metadata entry `name`; None when there is none."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return None


@dataclass(frozen=True, slots=True)
class Failure:
    """The status that a call ends with when it gets no response, and its trailing metadata.

    `cause` is the expected failure that it stands for; None for a bug.
    """

    code: Code
    sentence: str
    trailing_metadata: tuple[tuple[str, str], ...] = field(default=())
    cause: FlyweightError | None = field(default=None, compare=False, repr=False)


# Puts a failure into the words that clients are to hear.
Wording: TypeAlias = Callable[[Failure], Failure]

# A message as it came: a large one may lie where it was gathered.
Body: TypeAlias = bytes | memoryview

# Takes the answer to a call, once, from any thread.
Reply: TypeAlias = Callable[["bytes | Failure"], None]


class Handler(Protocol):
    """Answers one unary RPC: the request message's bytes in, the response message's bytes out.

    Raises:
        FlyweightError: an expected failure; `errors.code_of` knows its status.
    """

    def __call__(self, body: bytes, call: Call, /) -> bytes:
        """Answer the request message whose bytes are `body`."""
        ...


class DeferredHandler(Protocol):
    """Answers one unary RPC some time later, without keeping the thread that asked."""

    def __call__(self, body: Body, call: Call, reply: Reply, /) -> None:
        """Have the request message whose bytes are `body` answered by `reply`."""
        ...


class Stream(Protocol):
    """The carrier's end of a streaming RPC; every method may be called from any thread."""

    def read(self) -> None:
        """Have the next message given to the handler; to be asked for one at a time."""
        ...

    def send(self, body: bytes) -> None:
        """Send a message after those before it; what is sent after the end is dropped."""
        ...

    def finish(self, failure: Failure | None = None) -> None:
        """End the RPC once everything was sent."""
        ...


class StreamReader(Protocol):
    """The handler's end of a streaming RPC; called by one thread."""

    def on_message(self, body: Body) -> None:
        """Take a message that was asked for."""
        ...

    def on_half_close(self) -> None:
        """Note that the caller sends no more."""
        ...


class StreamHandler(Protocol):
    """Answers streaming RPCs.

    Raises:
        FlyweightError: the RPC is refused.
    """

    def __call__(self, call: Call, stream: Stream, /) -> StreamReader:
        """Begin to answer one; `call.on_end` tells of its end."""
        ...


def as_it_is(failure: Failure) -> Failure:
    """Return a failure in our own words."""
    return failure
