"""Giving memory back once the server has nothing to do.

glibc keeps what is freed for what comes next, which under load is right: giving it back and getting it again
costs a page fault for every 4 KB. After the last request it is only held.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from flyweight.server.rpc.admission import Gate
from flyweight.server.runtime.memory import trim_heap

# Longer than the pauses of callers that come again and again, and short for whoever looks at the memory.
_IDLE_SECONDS: Final = 5.0


def _in_a_thread(trim: Callable[[], None]) -> None:
    # A large heap takes tens of milliseconds, in which whoever allocates waits, but nobody who only needs the
    # interpreter.
    threading.Thread(target=trim, name="trim", daemon=True).start()


class IdleTrim:
    """Trims the heap once after each time of work. Belongs to the thread that calls `look`.

    Args:
        gate: every inference passes it.
        trim: gives the heap's free pages back, in a thread that ends with it.
        clock: monotonic seconds.
        start: has `trim` done.
    """

    def __init__(
        self,
        gate: Gate,
        trim: Callable[[], None] = trim_heap,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        self._gate = gate
        self._trim = trim
        self._clock = clock
        self._start = start
        self._seen = 0
        self._worked_seconds: float | None = None

    def look(self) -> None:
        """Trim if there was work, and none for a while; to be called now and then while nothing happens."""
        entered, now = self._gate.entered_count, self._clock()
        if self._gate.accepted_count or entered != self._seen:
            self._seen, self._worked_seconds = entered, now
        elif self._worked_seconds is not None and now - self._worked_seconds >= _IDLE_SECONDS:
            self._worked_seconds = None
            self._start(self._trim)
