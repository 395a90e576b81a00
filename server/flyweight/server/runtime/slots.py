"""How many runs go on at once: as many as there are cores, for more only take turns at a higher cost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flyweight.server.errors import DeadlineExceeded


class RunSlots:
    """A bounded number of turns. Any thread may wait for one; nobody waits past its deadline.

    The scheduler has as many slots, so requests seldom wait here. What does not pass it may: warm-ups, golden
    samples and the steps of ensembles; and a worker process has a lane for each turn, and no more.
    """

    def __init__(self, count: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._free = threading.Semaphore(count)
        self._monotonic = monotonic
        self.count = count

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
