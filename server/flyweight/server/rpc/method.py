"""What an RPC is to a carrier: its full name, what answers it, and in which way."""

from dataclasses import dataclass
from typing import TypeAlias

from flyweight.server.rpc.call import DeferredHandler, Handler, StreamHandler


@dataclass(frozen=True, slots=True)
class Unary:
    """An RPC with one request and one answer, by its full name ("/package.Service/Method").

    It is answered at once, from memory, on the thread that takes calls; a slow one, which may wait, in a
    thread that nobody else needs.
    """

    path: str
    handler: Handler
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """An RPC with one request and one answer, given by whoever comes to know it."""

    path: str
    handler: DeferredHandler


@dataclass(frozen=True, slots=True)
class Streaming:
    """An RPC in which either side, or both, may send any number of messages."""

    path: str
    handler: StreamHandler


Method: TypeAlias = Unary | Deferred | Streaming
