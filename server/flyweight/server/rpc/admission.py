"""Admission: how many requests the server holds, how many run, and who waits for how long.

A request is accepted or refused at once, so a queue never grows without bound. An accepted one waits its turn
for a place to run, first come first served, no longer than its caller does.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Final

from flyweight.server.errors import Cancelled, DeadlineExceeded, Draining, NotReady, QueueFull, ServerError
from flyweight.server.rpc.call import Call

# Long enough for a place to become free on a busy server, short enough that a caller hardly notices.
RETRY_AFTER_SECONDS: Final = 0.1

# The transport ends a call by its own clock, a little before ours: that is still the deadline's doing.
_CLOCK_SLACK_SECONDS: Final = 0.01

_TOO_LATE: Final = "The deadline passed before it was the request's turn to run; it was not run."


class _Waiter:
    """One request that waits; `granted` is written under the gate's lock, exactly once.

    A bare lock, held until somebody wakes it: every request of a busy server waits here, and an Event takes
    several times as long.
    """

    __slots__ = ("_woken", "granted")

    def __init__(self) -> None:
        self.granted = False
        self._woken = threading.Lock()
        self._woken.acquire()

    def wake(self) -> None:
        """End the wait; may be called more than once."""
        with suppress(RuntimeError):
            self._woken.release()

    def wait(self, timeout_seconds: float | None) -> None:
        """Wait to be woken."""
        self._woken.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)


class _State(Enum):
    STARTING = auto()
    OPEN = auto()
    DRAINING = auto()


class Gate:
    """The bounded gate that every inference passes; shut until it is opened. Thread-safe; owns no thread.

    `max_accepted` requests are inside at one time, of which `max_running` run.
    """

    def __init__(
        self, max_accepted: int, max_running: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_accepted = max_accepted
        self._max_running = max_running
        self._clock = clock
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._accepted = 0
        self._running = 0
        self._waiting: deque[_Waiter] = deque()
        self._state = _State.STARTING

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """Hold a place among the accepted requests.

        Raises:
            NotReady: the server is starting.
            Draining: the server is stopping.
            QueueFull: all places are taken.
        """
        with self._lock:
            if self._state is _State.STARTING:
                raise NotReady("The server is still loading its models; try again in a moment.")
            if self._state is _State.DRAINING:
                raise Draining("The server is shutting down; send the request to another replica.")
            if self._accepted >= self._max_accepted:
                raise QueueFull(
                    f"The server holds its {self._max_accepted} requests (--max-in-flight) already; "
                    "try again later or at another replica.",
                    RETRY_AFTER_SECONDS,
                )
            self._accepted += 1
        try:
            yield
        finally:
            with self._lock:
                self._accepted -= 1
                if self._accepted == 0:
                    self._empty.notify_all()

    @contextmanager
    def running(self, call: Call) -> Iterator[None]:
        """Hold a place to run, waiting for it no longer than the caller does.

        Raises:
            DeadlineExceeded: the caller's deadline passed first.
            Cancelled: the caller went away first.
        """
        self._take_turn(call)
        try:
            yield
        finally:
            with self._lock:
                self._pass_on()

    def _take_turn(self, call: Call) -> None:
        self._require_wanted(call)
        with self._lock:
            if self._running < self._max_running:
                self._running += 1
                return
            waiter = _Waiter()
            self._waiting.append(waiter)
        call.on_end(waiter.wake)
        if call.is_active():
            waiter.wait(self._remaining_seconds(call))
        self._settle(waiter, call)

    def _settle(self, waiter: _Waiter, call: Call) -> None:
        """Keep the place that a waiter was granted if its caller still wants it, else pass it on."""
        with self._lock:
            if not waiter.granted:
                self._waiting.remove(waiter)
        try:
            self._require_wanted(call)
        except ServerError:
            if waiter.granted:
                with self._lock:
                    self._pass_on()
            raise
        if not waiter.granted:
            raise DeadlineExceeded(_TOO_LATE)

    def _pass_on(self) -> None:
        """Give a place that became free to the first who waits; the lock is held."""
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.granted = True
            waiter.wake()
        else:
            self._running -= 1

    def _require_wanted(self, call: Call) -> None:
        remaining = self._remaining_seconds(call)
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded(_TOO_LATE)
        if not call.is_active():
            if remaining is not None and remaining < _CLOCK_SLACK_SECONDS:
                raise DeadlineExceeded(_TOO_LATE)
            raise Cancelled("The caller cancelled the request before it could run; it was not run.")

    def _remaining_seconds(self, call: Call) -> float | None:
        if call.deadline_monotonic is None:
            return None
        return max(0.0, call.deadline_monotonic - self._clock())

    def open(self) -> None:
        """Accept requests from now on."""
        with self._lock:
            self._state = _State.OPEN

    def close(self) -> None:
        """Refuse new requests from now on; those accepted go on."""
        with self._lock:
            self._state = _State.DRAINING

    def wait_until_empty(self, timeout_seconds: float) -> bool:
        """Wait until no accepted request is left; tell whether that was so within `timeout_seconds`."""
        with self._lock:
            return self._empty.wait_for(lambda: self._accepted == 0, timeout_seconds)

    @property
    def accepted_count(self) -> int:
        """How many requests are inside."""
        return self._accepted

    @property
    def waiting_count(self) -> int:
        """How many of them wait for a place to run."""
        return len(self._waiting)
