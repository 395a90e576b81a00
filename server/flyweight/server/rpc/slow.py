"""Calls that take as long as a model does to load: how many are taken at one time.

Each holds a thread until it is done. They have a pool of their own, so that neither inference nor the small
calls ever wait behind them, and it has more threads than calls are taken, so that one too many is refused at
once and never waits in the pool's queue.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flyweight.server.errors import QueueFull
from flyweight.server.rpc.call import Call

# As many as there are load threads at most: more could only wait for one another.
MOST_SLOW_CALLS: Final = 8
SLOW_CALL_THREADS: Final = 2 * MOST_SLOW_CALLS

_RETRY_AFTER_SECONDS: Final = 1.0

# How long such a call may take for a caller who set no deadline: the largest models we know load in a few
# seconds, and unloading waits for the slowest request.
_PATIENCE_SECONDS: Final = 60.0


class SlowCalls:
    """Counts the slow calls in progress. Thread-safe."""

    def __init__(self, most: int = MOST_SLOW_CALLS) -> None:
        self._most = most
        self._places = threading.Semaphore(most)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Be one of them for the length of a `with` block.

        Raises:
            QueueFull: there are as many as may be.
        """
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self._most} loads, unloads or changes of traffic are in progress; ask again later.",
                _RETRY_AFTER_SECONDS,
            )
        try:
            yield
        finally:
            self._places.release()


def patience_seconds(call: Call) -> float:
    """Return how long a call may wait: until its deadline, or a minute when it has none."""
    if call.deadline_monotonic is None:
        return _PATIENCE_SECONDS
    return max(0.0, call.deadline_monotonic - time.monotonic())
