"""When a worker that died is started again, and when one that does nothing is dead. Pure."""

from typing import Final

# A worker starts within half a second, so one that dies of its first request costs half a core at most.
FIRST_DELAY_SECONDS: Final = 1.0
# What is wrong may be repaired at any time (memory, a file); a minute is not long for whoever repairs it.
LONGEST_DELAY_SECONDS: Final = 60.0
# As long as the longest pause: a worker that lives this long is down for less than half of its time.
PROVEN_SECONDS: Final = 60.0

# A run uses the processor, or waits for a page of its model, for which a minute is long on any disk. One that
# has used none for so long is stopped or deadlocked. (How long a run takes in all is not limited.)
HUNG_SECONDS: Final = 60.0


def deaths_in_a_row(before: int, lived_seconds: float) -> int:
    """Return which death in a row this one is, 1 for the first, after a worker that lived so long."""
    return 1 if lived_seconds >= PROVEN_SECONDS else before + 1


def delay_seconds(deaths: int) -> float:
    """Return how long to wait after the death that is the given one in a row: 1, 2, 4 s ... 60 s."""
    doublings = min(deaths - 1, 10)
    return min(FIRST_DELAY_SECONDS * (1 << doublings), LONGEST_DELAY_SECONDS)


class HangWatch:
    """Tells from looks at a worker, some seconds apart, that it is hung. Used by one thread."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0

    def is_hung(self, now: float, runs: tuple[int, int], cpu_seconds: float | None) -> bool:
        """Tell whether a worker with runs in progress has neither begun another nor used the processor.

        Args:
            now: monotonic seconds.
            runs: how many are in progress, and how many were begun.
            cpu_seconds: processor time of the worker; None when it cannot be told, which proves nothing.
        """
        seen = (runs, cpu_seconds)
        if runs[0] == 0 or cpu_seconds is None or seen != self._seen:
            self._seen, self._since = seen, now
            return False
        return now - self._since >= HUNG_SECONDS
