"""How many rows are worth sharing a run, learnt from the runs themselves.

Merging pays where a row of a large run costs no more than a row of a small one: what a run costs by itself is
then shared. It does not pay where few rows already fill the caches, as in convolutions over large images. So
the limit is found by climbing: it doubles while a row becomes cheaper, and goes back where it does not. Two
rows that bring nothing are stepped over: of ResNet-18 in int8 they cost what one does, four 5 % less.

Of several runs of one size the quickest counts: the others had a neighbour on the processor.
"""

from collections import deque
from typing import Final

# What a row of a larger run has to cost of what it did before: a little less. Where it costs the same, larger
# runs only keep callers waiting, and long ones go to another thread, which is 20 us for each.
_WORTH: Final = 0.99
# Sizes, each twice the one before, that are tried beyond one row, and beyond more: what large runs need they
# take from the system, and onnxruntime keeps it.
_MOST_TRIED_ALONE: Final = 2
_MOST_TRIED: Final = 1
# What a row of the best size has to cost of what one of a smaller size did before for that to be left: the
# smaller ones may have run when the machine was quieter.
_TOO_DEAR: Final = 1.1
# The newest runs of one size that count.
_WINDOW: Final = 9
# Runs of one size before it is compared with another.
_ENOUGH: Final = 5
# Runs in which a size beyond one that brought nothing has to come together, or it is given up, too.
_PATIENCE: Final = 64
# Runs before a limit that was found to be too high is tried again, and the most that this may become: the
# model does not change, only what else the machine does.
_FIRST_PAUSE: Final = 256
_LONGEST_PAUSE: Final = 65_536


class Pace:
    """The costs of runs by their number of rows, in powers of two. Not thread-safe: the scheduler's lock."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max(1, max_rows)
        # By size: seconds, and what is compared, by the row.
        self._seconds: dict[int, deque[float]] = {}
        self._costs: dict[int, deque[float]] = {}
        # The most rows that were found to be worth it, and the most that a run may have now.
        self._best = 1
        self._limit = min(2, self._max_rows)
        self._fruitless = 0
        self._patience = 0
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

    def note(self, rows: int, seconds: float, cost: float | None = None) -> None:
        """Learn from a run: how long it took, and what it cost if that is something else."""
        bucket, rows = _bucket(rows), max(1, rows)
        _latest(self._seconds, bucket).append(seconds / rows)
        known = _latest(self._costs, bucket)
        known.append((seconds if cost is None else cost) / rows)
        self._runs_to_retry = max(0, self._runs_to_retry - 1)
        self._patience = max(0, self._patience - 1)
        if bucket == _bucket(self._limit) and len(known) >= _ENOUGH:
            self._climb(min(known))
        elif self._fruitless and not self._patience:
            self._go_back()

    def _climb(self, cost: float) -> None:
        """Go on from a limit that was tried."""
        if self._limit == self._best > 1 and self._come_down(cost):
            return
        best = self._costs.get(_bucket(self._best))
        if self._limit > self._best and best is not None and cost > _WORTH * min(best):
            self._fruitless += 1
            most = _MOST_TRIED_ALONE if self._best == 1 else _MOST_TRIED
            if self._fruitless == most or self._limit == self._max_rows:
                self._go_back()
                return
            self._patience = _PATIENCE
        else:
            self._best, self._fruitless = self._limit, 0
            if self._runs_to_retry:
                return
        self._limit = min(2 * self._limit, self._max_rows)

    def _come_down(self, cost: float) -> bool:
        """Go to a smaller size if its rows cost clearly less than `cost`; tell whether they do."""
        below = {bucket: min(known) for bucket, known in self._costs.items() if bucket < _bucket(self._best)}
        cheapest = min(below, key=lambda bucket: below[bucket], default=None)
        if cheapest is None or cost <= _TOO_DEAR * below[cheapest]:
            return False
        # If it was the machine, and not the size, that is soon found out.
        self._best, self._pause = 1 << cheapest, _FIRST_PAUSE
        self._go_back()
        return True

    def _go_back(self) -> None:
        self._limit, self._fruitless = self._best, 0
        # What is known of the others is of the past when they are tried again.
        for bucket in [bucket for bucket in self._costs if bucket > _bucket(self._best)]:
            del self._costs[bucket]
        self._runs_to_retry, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)


def _latest(known: dict[int, deque[float]], bucket: int) -> deque[float]:
    if bucket not in known:
        known[bucket] = deque(maxlen=_WINDOW)
    return known[bucket]


def _bucket(rows: int) -> int:
    """Return the power of two that holds `rows`: 0 for 1, 1 for 2, 2 for 3 and 4, 3 for 5 to 8."""
    return max(0, rows - 1).bit_length()
