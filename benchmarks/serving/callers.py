"""Connections that each keep calls under way, and time them."""

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.serving.contenders import Running
from benchmarks.serving.frames import Connection, grpc_message

_PATIENCE_SECONDS: Final = 60.0
# Opened at one time: fewer than the shortest backlog of a listening socket.
_OPENED_AT_ONCE: Final = 64

# socket(7), SO_LINGER: on, for no time.
_AT_ONCE_AND_UNSENT: Final = struct.pack("ii", 1, 0)

# Is told a call's connection, its grpc-status, and how long it took in seconds.
OnEnd = Callable[["Caller", str, float], None]


class Caller:
    """A connection that times its calls. For the thread of its loop."""

    def __init__(self, running: Running, on_end: OnEnd) -> None:
        question = running.contender.question
        message = grpc_message(question.body)
        self._on_end = on_end
        self._begun: dict[int, float] = {}
        self.connection = Connection(running.address, question.path, message, self._take)
        self.transport: asyncio.BaseTransport | None = None

    async def open(self, address: str) -> None:
        """Connect, and wait for the server's settings.

        Raises:
            OSError: it cannot be reached.
            TimeoutError: it says nothing.
        """
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_connection(lambda: self.connection, host, int(port))
        await asyncio.wait_for(self.connection.ready, _PATIENCE_SECONDS)

    def begin(self) -> None:
        """Begin a call."""
        began = time.perf_counter()
        self._begun[self.connection.call()] = began

    def drop(self, *, by_reset: bool) -> None:
        """Close the connection."""
        if self.transport is None:
            return
        if by_reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE_AND_UNSENT)
        self.transport.close()

    def _take(self, stream: int, status: str, _size: int) -> None:
        self._on_end(self, status, time.perf_counter() - self._begun.pop(stream))


async def open_callers(running: Running, count: int, on_end: OnEnd) -> list[Caller]:
    """Open so many connections.

    Raises:
        OSError: the server takes no more.
    """
    callers = [Caller(running, on_end) for _ in range(count)]
    for at in range(0, count, _OPENED_AT_ONCE):
        await asyncio.gather(*(caller.open(running.address) for caller in callers[at : at + _OPENED_AT_ONCE]))
    return callers


def drop(callers: Sequence[Caller], *, by_reset: bool = False) -> None:
    """Close connections; a reset is what a client leaves that was killed."""
    for caller in callers:
        caller.drop(by_reset=by_reset)


class Round:
    """Keeps calls under way until its time is over, and counts what came of them."""

    def __init__(self) -> None:
        self._began = self._until = 0.0
        self._under_way = 0
        self.elapsed_seconds = 0.0
        self._is_over = asyncio.Event()
        self.seconds: list[float] = []
        self.failures: Counter[str] = Counter()

    async def run(self, callers: Sequence[Caller], in_flight: int, seconds: float) -> None:
        """Keep so many calls under way on each connection, and wait for the last answer.

        Raises:
            TimeoutError: it did not come.
        """
        self._began = time.perf_counter()
        self._until = self._began + seconds
        for caller in [*callers] * in_flight:
            self._begin(caller)
        await asyncio.wait_for(self._is_over.wait(), seconds + _PATIENCE_SECONDS)

    def end(self, caller: Caller, status: str, seconds: float) -> None:
        """Note the end of a call, and begin the next."""
        self._under_way -= 1
        now = time.perf_counter()
        if status == "0":
            self.seconds.append(seconds)
        else:
            self.failures[status] += 1
        if now < self._until and not caller.connection.is_closed:
            self._begin(caller)
        elif not self._under_way:
            self.elapsed_seconds = now - self._began
            self._is_over.set()

    def _begin(self, caller: Caller) -> None:
        self._under_way += 1
        caller.begin()
