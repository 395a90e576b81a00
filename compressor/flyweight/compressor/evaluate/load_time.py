"""How long a variant takes from file to ready session, against its baseline, in turns."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

_FEWEST_ROUNDS: Final = 3
_MOST_ROUNDS: Final = 15

Build = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class LoadTime:
    """Seconds to build a session from the file, pages of the file already in memory.

    Attributes:
        seconds: median of fresh builds.
        baseline_seconds: the same for the baseline, between the variant's builds.
        rounds: builds of each.
    """

    seconds: float
    baseline_seconds: float
    rounds: int

    @property
    def ratio(self) -> float:
        """How many times as fast as the baseline it loads."""
        return self.baseline_seconds / self.seconds if self.seconds else 1.0


def time_loading(
    baseline: Build, variant: Build, budget_seconds: float, clock: Clock = time.perf_counter
) -> LoadTime:
    """Build both in turns for about `budget_seconds`, at least three times each.

    The first round reads the files into the page cache and is not counted; each session is freed before the
    next one is built.
    """
    theirs, ours = list[float](), list[float]()
    started = clock()
    for turn in range(_MOST_ROUNDS + 1):
        pair = ((theirs, baseline), (ours, variant))
        for times, build in pair if turn % 2 == 0 else pair[::-1]:
            begun = clock()
            built = build()
            if turn:
                times.append(clock() - begun)
            del built
        if turn >= _FEWEST_ROUNDS and clock() - started >= budget_seconds:
            break
    return LoadTime(median(ours), median(theirs), len(ours))
