"""Latency of a variant against its baseline, both timed in turns so that a busy moment hits both."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]

# A turn is long enough for a model's weights to settle in the caches after the other one's, and short enough
# that there are many turns.
_TURN_SECONDS: Final = 0.02
_FEWEST_TURNS: Final = 6
_WARM_UP_RUNS: Final = 3
# An interval whose ends are further apart than this says little.
NARROW: Final = 1.25
_PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """Time for one run at one batch size.

    Attributes:
        batch: rows in a run.
        p50_seconds: the median.
        p99_seconds: the 99th percentile.
        baseline_p50_seconds: the baseline's median in the same turns.
        speedup: the median over turns of baseline's over variant's median; above 1 is faster.
        speedup_low: lower end of a 95 % confidence interval of it.
        speedup_high: upper end.
        runs: of the variant that were timed.
        threads: inside an operator.
    """

    batch: int
    p50_seconds: float
    p99_seconds: float
    baseline_p50_seconds: float
    speedup: float
    speedup_low: float
    speedup_high: float
    runs: int
    threads: int = 1

    @property
    def interval_width(self) -> float:
        """Upper over lower end of the speedup's interval: 1 is certainty."""
        return self.speedup_high / self.speedup_low if self.speedup_low > 0 else math.inf

    def at_pace_of(self, baseline: "LatencyPoint") -> "LatencyPoint":
        """Return the point as if the machine had been as fast as when `baseline` was timed.

        A shared machine is faster at one minute than at the next. Both models were timed in the same turns:
        what the baseline took in them against what it took alone is the machine's doing: times are divided by
        it, and the medians of variants that were timed minutes apart can be compared. The speedup stays, and
        the median follows from it: a disturbed turn moves the median of all times, and hardly that of ratios.
        """
        median = baseline.p50_seconds / self.speedup
        return replace(
            self,
            p50_seconds=median,
            p99_seconds=self.p99_seconds * median / self.p50_seconds,
            baseline_p50_seconds=baseline.p50_seconds,
        )


def time_in_turns(
    batch: int, baseline: Run, variant: Run, budget_seconds: float, clock: Clock = time.perf_counter
) -> LatencyPoint:
    """Time both for about `budget_seconds` in all, and at least six turns each."""
    one_run = max(_warm_up(baseline, clock), _warm_up(variant, clock))
    runs = max(1, min(round(_TURN_SECONDS / max(one_run, 1e-7)), 2000))
    turns = max(_FEWEST_TURNS, min(200, round(budget_seconds / max(2 * runs * one_run, 1e-7))))
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    for turn in range(turns):
        first, second = (theirs, ours) if turn % 2 == 0 else (ours, theirs)
        for times in (first, second):
            times.append(_times(baseline if times is theirs else variant, runs, clock))
    ratios = sorted(float(np.median(b) / np.median(v)) for b, v in zip(theirs, ours, strict=True))
    low, high = median_interval(len(ratios))
    all_ours = np.concatenate(ours)
    return LatencyPoint(
        batch=batch,
        p50_seconds=float(np.median(all_ours)),
        p99_seconds=float(np.percentile(all_ours, 99)),
        baseline_p50_seconds=float(np.median(np.concatenate(theirs))),
        speedup=float(np.median(ratios)),
        speedup_low=ratios[low],
        speedup_high=ratios[high],
        runs=len(all_ours),
    )


def time_surely(
    batch: int, baseline: Run, variant: Run, budget_seconds: float, clock: Clock = time.perf_counter
) -> LatencyPoint:
    """Time both in turns, and once more for three times as long where the interval came out wide."""
    point = time_in_turns(batch, baseline, variant, budget_seconds, clock)
    if point.interval_width <= NARROW:
        return point
    again = time_in_turns(batch, baseline, variant, _PATIENCE * budget_seconds, clock)
    return min(point, again, key=lambda one: one.interval_width)


def time_alone(batch: int, run: Run, budget_seconds: float, clock: Clock = time.perf_counter) -> LatencyPoint:
    """Time the baseline, whose speedup is 1 by definition."""
    one_run = _warm_up(run, clock)
    runs = max(2 * _FEWEST_TURNS, min(20_000, round(budget_seconds / max(one_run, 1e-7))))
    times = np.array(_times(run, runs, clock))
    p50 = float(np.median(times))
    return LatencyPoint(batch, p50, float(np.percentile(times, 99)), p50, 1.0, 1.0, 1.0, runs)


def median_interval(count: int) -> tuple[int, int]:
    """Return the places of the order statistics that enclose the median with 95 % confidence.

    The number of values below the median is binomial (count, 1/2); for fewer than 6 values the extremes
    enclose it less surely (H. A. David and H. N. Nagaraja, "Order Statistics", 3rd ed., section 7.1).
    """
    tail, low = 0.0, 0
    while low < (count - 1) // 2:
        tail += math.comb(count, low) / 2**count
        if tail + math.comb(count, low + 1) / 2**count > 0.025:
            break
        low += 1
    return low, count - 1 - low


def _times(run: Run, runs: int, clock: Clock) -> list[float]:
    times = []
    for _ in range(runs):
        start = clock()
        run()
        times.append(clock() - start)
    return times


def _warm_up(run: Run, clock: Clock) -> float:
    """Run until memory is planned and caches are warm; return the time of the fastest run."""
    return min(_times(run, _WARM_UP_RUNS, clock))
