"""The crew: threads for runs that are too long for the thread that brings requests."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from flyweight.server.survival import survive

Work = TypeVar("Work")

_log = logging.getLogger(__name__)


class Crew(Generic[Work]):
    """A fixed number of threads, each started when it is first needed. Owns them, until `stop`.

    There is never more work at hand than threads: the scheduler hands out no more runs than it has slots.
    """

    def __init__(self, size: int, do: Callable[[Work], None]) -> None:
        self._size = size
        self._do = do
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    def hand(self, work: Work) -> bool:
        """Have a thread do a piece of work; tell whether one does, or can be had for it."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._size and not self._hire():
                return False
        self._work.put(work)
        return True

    def _hire(self) -> bool:
        """Start one more thread; tell whether the system (its limit on processes) allows it."""
        thread = threading.Thread(target=self._live, name=f"run-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _log.exception("No thread could be started for a run; raise the limit on processes.")
            return False
        self._threads.append(thread)
        return True

    def stop(self) -> None:
        """End every thread once it has done what it is at."""
        for _ in self._threads:
            self._work.put(None)

    def _live(self) -> None:
        while (work := self._work.get()) is not None:
            survive("doing a run", partial(self._do, work), lambda _: None)
            # A thread that waits must not keep the tensors of its last run.
            del work
            with self._lock:
                self._idle += 1
