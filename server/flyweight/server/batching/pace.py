"""How many rows are worth sharing a run, learnt from the runs themselves.

Merging pays where a row of a large run costs no more than a row of a small one: what a run costs by itself is
then shared. It does not pay where few rows already fill the caches, as in convolutions over large images. So
the limit is found by climbing: it doubles while a row becomes cheaper, and goes back where it does not.

Of several runs of one size the quickest counts: the others had a neighbour on the processor.
"""

from collections import deque
from typing import Final

# What a row of a run of twice the size has to cost of what it did before: a little less. Where it costs the
# same, larger runs only keep callers waiting, and long ones go to another thread, which is 20 us for each.
_WORTH: Final = 0.99
# The newest runs of one size that count.
_WINDOW: Final = 9
# Runs of one size before it is compared with another.
_ENOUGH: Final = 5
# Runs before a limit that was found to be too high is tried again, and the most that this may become: the
# model does not change, only what else the machine does.
_FIRST_PAUSE: Final = 256
_LONGEST_PAUSE: Final = 65_536


class Pace:
    """The costs of runs by their number of rows, in powers of two. Not thread-safe: the scheduler's lock."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max(1, max_rows)
        self._seconds: dict[int, deque[float]] = {}
        self._limit = min(2, self._max_rows)
        self._pause = _FIRST_PAUSE
        self._runs_to_retry = 0

    @property
    def limit(self) -> int:
        """Return the most rows that are worth a run."""
        return self._limit

    def expected_seconds(self, rows: int) -> float | None:
        """Return what a run of so many rows will take, by those before; None when nothing is known."""
        if not self._seconds:
            return None
        bucket = _bucket(rows)
        nearest = min(self._seconds, key=lambda other: abs(other - bucket))
        return min(self._seconds[nearest]) * rows

    def note(self, rows: int, seconds: float) -> None:
        """Learn from a run."""
        bucket = _bucket(rows)
        known = self._seconds.get(bucket)
        if known is None:
            known = self._seconds[bucket] = deque(maxlen=_WINDOW)
        known.append(seconds / max(1, rows))
        self._runs_to_retry = max(0, self._runs_to_retry - 1)
        if bucket == _bucket(self._limit) and len(known) >= _ENOUGH:
            self._climb(bucket)

    def _climb(self, bucket: int) -> None:
        smaller = self._seconds.get(bucket - 1)
        if smaller is not None and min(self._seconds[bucket]) > _WORTH * min(smaller):
            self._limit = max(1, self._limit // 2)
            # What is known of either is of the past when the larger one is tried again.
            del self._seconds[bucket]
            self._runs_to_retry, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        elif self._limit < self._max_rows and not self._runs_to_retry:
            self._limit = min(2 * self._limit, self._max_rows)


def _bucket(rows: int) -> int:
    """Return the power of two that holds `rows`: 0 for 1, 1 for 2, 2 for 3 and 4, 3 for 5 to 8."""
    return max(0, rows - 1).bit_length()
