"""The threads that bring variants up, side by side."""

import threading
import time
from collections.abc import Callable
from functools import partial

from flyweight.server.errors import LoadFailed
from flyweight.server.survival import survive

Job = Callable[[], None]


class LoadThreads:
    """Owns a thread for each job, until `stop`.

    A job may lower its thread's priority, which an ordinary user cannot raise again; so none inherits the
    thread of another. Whoever submits hands in no more jobs at a time than may load at once. The threads are
    daemons: a session that is being built cannot be cut short, and must not keep the process from ending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._is_stopped = False

    def submit(self, job: Job) -> None:
        """Have a job, which raises nothing, done by a thread of its own; after `stop` it is not done.

        Raises:
            LoadFailed: no thread could be started.
        """
        thread = threading.Thread(target=partial(self._do, job), name="flyweight-load", daemon=True)
        with self._lock:
            if self._is_stopped:
                return
            try:
                thread.start()
            except RuntimeError as error:
                raise LoadFailed(
                    "No thread could be started for a load; raise the limit on processes."
                ) from error
            self._threads.add(thread)

    def stop(self, timeout_seconds: float) -> None:
        """Take no more jobs, wait for those in progress, and leave behind what is not done in time."""
        with self._lock:
            self._is_stopped = True
            threads = tuple(self._threads)
        ends = time.monotonic() + timeout_seconds
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _do(self, job: Job) -> None:
        survive("loading a variant", job, lambda _: None)
        with self._lock:
            self._threads.discard(threading.current_thread())
