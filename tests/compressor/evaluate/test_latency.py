"""Timing in turns, with a clock that the test moves."""

from collections.abc import Callable

import pytest

from flyweight.compressor.evaluate.latency import (
    LatencyPoint,
    median_interval,
    time_alone,
    time_in_turns,
    time_surely,
)


class Clock:
    """Time passes only in the work that is timed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now += seconds(len(self.order))

        return run


def test_speedup_is_the_baselines_time_over_the_variants() -> None:
    clock = Clock()
    point = time_in_turns(
        8, clock.work("b", lambda _: 0.004), clock.work("v", lambda _: 0.001), 1.0, clock=clock
    )
    assert point.batch == 8
    assert point.p50_seconds == pytest.approx(0.001)
    assert point.baseline_p50_seconds == pytest.approx(0.004)
    assert (point.speedup, point.speedup_low, point.speedup_high) == pytest.approx((4, 4, 4))
    assert point.runs == clock.order.count("v") - 3


def test_turns_alternate_and_who_goes_first_does_too() -> None:
    clock = Clock()
    time_in_turns(1, clock.work("b", lambda _: 0.03), clock.work("v", lambda _: 0.03), 0.4, clock=clock)
    assert (
        "".join(clock.order)
        == "bbbvvv" + "bvvb" * (len(clock.order[6:]) // 4) + "bvvb"[: len(clock.order[6:]) % 4]
    )


def test_a_busy_spell_that_hits_both_leaves_the_speedup() -> None:
    """The machine is three times slower in the middle third."""
    clock = Clock()

    def busy(run: int) -> float:
        return 3.0 if 40 < run < 80 else 1.0

    point = time_in_turns(
        1,
        clock.work("b", lambda run: 0.02 * busy(run)),
        clock.work("v", lambda run: 0.01 * busy(run)),
        2.0,
        clock=clock,
    )
    assert point.speedup == pytest.approx(2)


def test_a_run_slower_than_the_budget_still_gets_six_turns() -> None:
    clock = Clock()
    point = time_in_turns(
        1, clock.work("b", lambda _: 10.0), clock.work("v", lambda _: 10.0), 0.1, clock=clock
    )
    assert point.runs == 6


def test_the_baseline_alone_has_speedup_one() -> None:
    clock = Clock()
    point = time_alone(1, clock.work("b", lambda _: 0.01), 0.5, clock=clock)
    assert (point.speedup, point.p50_seconds, point.runs) == (1.0, pytest.approx(0.01), 50)


@pytest.mark.parametrize(("count", "places"), [(6, (0, 5)), (10, (1, 8)), (20, (5, 14)), (100, (39, 60))])
def test_the_interval_of_a_median_is_that_of_the_tables(count: int, places: tuple[int, int]) -> None:
    """Published intervals, counted from 0: n=10 gives the 2nd and 9th value, n=20 the 6th and 15th."""
    assert median_interval(count) == places


def test_times_are_given_at_the_baselines_pace_and_the_speedup_stays() -> None:
    """The machine is half as fast while the variant is timed as it was for the baseline alone."""
    clock = Clock()
    alone = time_alone(1, clock.work("b", lambda _: 0.01), 0.5, clock=clock)
    noisy = time_in_turns(
        1, clock.work("b", lambda _: 0.02), clock.work("v", lambda _: 0.005), 0.5, clock=clock
    )
    point = noisy.at_pace_of(alone)
    assert point.p50_seconds == pytest.approx(0.0025)
    assert point.baseline_p50_seconds == pytest.approx(0.01)
    assert point.speedup == pytest.approx(4)


def test_times_and_speedup_never_contradict_each_other() -> None:
    """Disturbed turns move the median of all times, and hardly the median of ratios."""
    alone = LatencyPoint(1, 0.010, 0.011, 0.010, 1.0, 1.0, 1.0, 12)
    disturbed = LatencyPoint(1, 0.0098, 0.0147, 0.010, 0.7, 0.6, 0.8, 12)
    point = disturbed.at_pace_of(alone)
    assert point.baseline_p50_seconds / point.p50_seconds == pytest.approx(point.speedup)
    assert point.p99_seconds / point.p50_seconds == pytest.approx(1.5)


def test_what_came_out_wide_is_timed_again_for_longer() -> None:
    """The first turns are disturbed at random, the later ones are not."""
    clock = Clock()

    def disturbed(run: int) -> float:
        return 0.03 * (1 + run % 5) if run < 20 else 0.03

    point = time_surely(1, clock.work("b", lambda _: 0.06), clock.work("v", disturbed), 0.4, clock=clock)
    assert (point.speedup, point.interval_width) == (pytest.approx(2), pytest.approx(1))
    calm = Clock()
    time_surely(1, calm.work("b", lambda _: 0.06), calm.work("v", lambda _: 0.03), 0.4, clock=calm)
    assert len(calm.order) < len(clock.order) / 2
