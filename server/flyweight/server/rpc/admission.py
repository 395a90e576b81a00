"""Admission: how many requests the server holds.

A request is accepted or refused at once, so a queue never grows without bound.
"""

import threading
from enum import Enum, auto

from flyweight.server.errors import Draining, NotReady, QueueFull


class _State(Enum):
    STARTING = auto()
    OPEN = auto()
    DRAINING = auto()


class Gate:
    """The bounded gate that every inference passes; shut until it is opened. Thread-safe; owns no thread.

    `max_accepted` requests are inside at one time.
    """

    def __init__(self, max_accepted: int) -> None:
        self._max_accepted = max_accepted
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._accepted = 0
        self._entered = 0
        self._state = _State.STARTING

    def enter(self) -> None:
        """Take a place among the accepted requests; `leave` gives it back.

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
                    "try again later or at another replica."
                )
            self._accepted += 1
            self._entered += 1

    def leave(self) -> None:
        """Give back a place."""
        with self._lock:
            self._accepted -= 1
            if self._accepted == 0:
                self._empty.notify_all()

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
    def entered_count(self) -> int:
        """How many requests ever came in."""
        return self._entered

    def share(self) -> float:
        """How much of what may be inside is: 0 for an idle server, 1 for a full one."""
        return self._accepted / self._max_accepted
