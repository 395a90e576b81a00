"""How much of the server one caller may hold at a time."""

import threading

from flyweight.server.errors import QueueFull


class ClientLimits:
    """Counts each caller's requests, and refuses those over the limit; 0 is no limit. Thread-safe.

    Remembers only callers with a request inside, so it is never larger than what the server has accepted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._inside: dict[str, int] = {}

    @property
    def is_limited(self) -> bool:
        """Whether it matters who calls."""
        return self._limit > 0

    def enter(self, key: str) -> None:
        """Let a request of the caller `key` in; `leave` must follow.

        Raises:
            QueueFull: the caller has as many requests inside as one may have.
        """
        if not self._limit:
            return
        with self._lock:
            count = self._inside.get(key, 0)
            if count < self._limit:
                self._inside[key] = count + 1
                return
        raise QueueFull(
            f"{key} has {self._limit} requests inside, as many as one caller may have; send fewer at a time, "
            "or start the server with a larger --max-in-flight-per-client."
        )

    def leave(self, key: str) -> None:
        """Let a request of the caller `key` out."""
        if not self._limit:
            return
        with self._lock:
            count = self._inside[key]
            if count > 1:
                self._inside[key] = count - 1
            else:
                del self._inside[key]

    @property
    def known_callers(self) -> int:
        """How many callers have a request inside."""
        return len(self._inside)
