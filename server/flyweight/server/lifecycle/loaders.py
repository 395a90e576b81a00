"""The threads that bring variants up, side by side and never more than were asked for."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from flyweight.server.survival import survive

Job = Callable[[], None]


class LoadThreads:
    """Owns `count` threads, from `start` to `stop`; each takes one job after the other.

    Whoever submits hands in no more than `count` jobs at a time, so that none waits behind another. The
    threads are daemons: a session that is being built cannot be cut short, and must not keep the process from
    ending.
    """

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"flyweight-load-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Have a job done by the next thread that is free; it raises nothing."""
        self._jobs.put(job)

    def stop(self, timeout_seconds: float) -> None:
        """Take no more jobs, wait for those in progress, and leave behind what is not done in time."""
        for _ in self._threads:
            self._jobs.put(None)
        ends = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, ends - time.monotonic()))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            survive("loading a variant", job, lambda _: None)
