"""A lease: what a request holds while it uses a variant, and what keeps the variant from being unloaded.

Leases are counted under a lock that is held for an addition only. A retired variant gives out no more of
them; when its last one ends, `on_idle` is called, once, by whoever ended it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flyweight.server.errors import NotReady


class VariantRetired(NotReady):
    """The variant was replaced or removed after it was looked up; look again in the current table."""


class Leases:
    """The count of those who use one variant. Every method may be called from any thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._held = 0
        self._on_idle: Callable[[], None] | None = None
        self._retired = False

    @property
    def held(self) -> int:
        """Return how many leases are held at this moment."""
        return self._held

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a lease for the length of a `with` block.

        Raises:
            VariantRetired: no more leases are given out.
        """
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> None:
        """Take a lease that `release` gives back.

        Raises:
            VariantRetired: no more leases are given out.
        """
        with self._lock:
            if self._retired:
                raise VariantRetired(f"{self._what} is being replaced; ask again.")
            self._held += 1

    def release(self) -> None:
        """Give a lease back."""
        with self._lock:
            self._held -= 1
            on_idle = self._take_idle_callback()
        if on_idle is not None:
            on_idle()

    def retire(self, on_idle: Callable[[], None]) -> None:
        """Give out no more leases, and call `on_idle` once when none is held, which may be now."""
        with self._lock:
            if self._retired:
                return
            self._retired, self._on_idle = True, on_idle
            callback = self._take_idle_callback()
        if callback is not None:
            callback()

    def _take_idle_callback(self) -> Callable[[], None] | None:
        if self._held > 0 or not self._retired:
            return None
        callback, self._on_idle = self._on_idle, None
        return callback
