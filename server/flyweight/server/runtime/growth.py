"""By how much a process grows while it loads a model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flyweight.server.runtime.memory import Held, read_held, reset_peak, trim_heap


@dataclass(frozen=True, slots=True)
class Growth:
    """What came to a process, in bytes, freed memory given back; never negative.

    `peak_bytes` is by how much resident memory rose at most, and None where only the process's highest
    moment of all is known.
    """

    pss_bytes: int = 0
    uss_bytes: int = 0
    anonymous_bytes: int = 0
    peak_bytes: int | None = None


class GrowthMeter:
    """Measures from its construction on. Whatever else the process does meanwhile is in the figures.

    Args:
        owns_process: nothing else happens in this process, so its peak may begin anew.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        # Imported here: Growth is also for those who leave sessions to other processes, without onnxruntime.
        from flyweight.server.runtime.priming import prime

        prime()
        trim_heap()
        self._tells_peak = owns_process and reset_peak()
        self.before = read_held()

    def read(self) -> Growth:
        """Give freed memory back to the kernel, and return what the process grew by up to now."""
        trim_heap()
        now = read_held()
        if self.before is None or now is None:
            return Growth()
        return self._difference(self.before, now)

    def _difference(self, before: Held, now: Held) -> Growth:
        return Growth(
            pss_bytes=max(0, now.pss_bytes - before.pss_bytes),
            uss_bytes=max(0, now.uss_bytes - before.uss_bytes),
            anonymous_bytes=max(0, now.anonymous_bytes - before.anonymous_bytes),
            peak_bytes=(
                max(0, now.peak_resident_bytes - before.resident_bytes) if self._tells_peak else None
            ),
        )


@dataclass(eq=False, slots=True)
class Span:
    """The time of one load; `is_shared` once another load of the process fell into it."""

    is_shared: bool = False


class Spans:
    """Tells which loads of a process had it to themselves: of two at once neither's growth can be told.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Span] = set()

    @contextmanager
    def span(self) -> Iterator[Span]:
        """Be one of them for the length of a `with` block."""
        span = Span()
        with self._lock:
            self._open.add(span)
            for each in self._open if len(self._open) > 1 else ():
                each.is_shared = True
        try:
            yield span
        finally:
            with self._lock:
                self._open.discard(span)
