"""Whether the processors have time to spare, in which what gives way gets done."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/stat")
# The kernel counts in hundredths of a second: over this long, two processors are told to 3 %.
_SHORTEST_SECONDS: Final = 0.2
# A tenth of two processors builds a small session in seconds. Where other programs kept all of both, a load
# that gave way took 20 s instead of 0.6, and requests waited up to 0.6 s for locks that it held.
_ENOUGH: Final = 0.1


class SpareTime:
    """Looks now and then at how long this process's processors were idle. Used by one thread, asked by any.

    Args:
        stat: the kernel's file of that name, proc_stat(5).
        clock: monotonic seconds.
    """

    def __init__(self, stat: Path = _STAT, clock: Callable[[], float] = time.monotonic) -> None:
        self._stat = stat
        self._clock = clock
        self._looked_seconds = clock()
        self._last = self._before = self._read()

    def look(self) -> None:
        """Take down the counters, from which `is_enough` counts."""
        now = self._clock()
        if now - self._looked_seconds >= _SHORTEST_SECONDS:
            self._looked_seconds = now
            self._before, self._last = self._last, self._read()

    def is_enough(self) -> bool:
        """Tell whether a tenth of the processors was idle lately; not where the kernel does not tell."""
        then, now = self._before, self._read()
        if then is None or now is None:
            return False
        idle, total = (after - before for before, after in zip(then, now, strict=True))
        return idle > 0 and idle >= _ENOUGH * total

    def _read(self) -> tuple[int, int] | None:
        """Return the ticks that the processors of this process were idle, and all of their ticks."""
        idle = total = 0
        try:
            mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            for line in self._stat.read_text(encoding="ascii").splitlines():
                name, *counters = line.split()
                if name in mine:
                    # user, nice, system, idle, iowait, irq, softirq, steal; a guest's time is in user's.
                    ticks = [int(counter) for counter in counters[:8]]
                    idle += ticks[3] + ticks[4]
                    total += sum(ticks)
        except (AttributeError, OSError, ValueError, IndexError):
            return None
        return idle, total
