"""How many runs of one variant go on at once, whoever asks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flyweight.server.errors import DeadlineExceeded


class RunSlots:
    """A variant's turns. Any thread may wait for one; nobody waits past its deadline.

    The scheduler has as many slots for all variants together, so requests do not wait here. It is for
    those who do not pass it: a worker process has a lane for each turn, and no more. Variants do not share
    turns: one that is tried before it serves would keep requests for others waiting.
    """

    def __init__(self, count: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._free = threading.Semaphore(count)
        self._monotonic = monotonic

    @contextmanager
    def hold(self, deadline_monotonic: float | None = None) -> Iterator[float]:
        """Hold a turn for the length of a `with` block, which is given the seconds that were waited.

        Raises:
            DeadlineExceeded: no turn was free before the deadline.
        """
        began = self._monotonic()
        # A deadline in the past makes the time-out 0: a free turn is not taken for work nobody waits for.
        left = None if deadline_monotonic is None else deadline_monotonic - began
        if left is not None and left <= 0:
            raise DeadlineExceeded("The deadline passed before the request's turn came.")
        if not self._free.acquire(timeout=left):
            raise DeadlineExceeded("The deadline passed while the request waited for its turn.")
        try:
            yield self._monotonic() - began
        finally:
            self._free.release()
