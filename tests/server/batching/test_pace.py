"""How many rows a run should have, learnt from numbers alone."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from flyweight.server.batching.pace import Pace

# More runs than any limit is left alone for at first.
MANY = 3000


def run(pace: Pace, cost: Callable[[int], float], runs: int) -> list[int]:
    """Run as full as it is worth, `runs` times; return the limits on the way."""
    limits: list[int] = []
    for _ in range(runs):
        pace.note(pace.limit, cost(pace.limit))
        limits.append(pace.limit)
    return limits


def fixed_and_a_little(rows: int) -> float:
    return 0.001 + 0.00001 * rows


def each_row_dearer(rows: int) -> float:
    return 0.001 * rows**1.5


def test_begins_carefully_and_never_above_what_a_run_may_hold() -> None:
    assert Pace(64).limit == 2
    assert Pace(1).limit == 1
    assert Pace(0).limit == 1


@pytest.mark.parametrize("most", [2, 6, 8, 64, 100])
def test_climbs_to_the_top_where_merging_pays(most: int) -> None:
    pace = Pace(most)
    assert max(run(pace, fixed_and_a_little, MANY)) == pace.limit == most


def test_comes_down_where_each_row_gets_dearer() -> None:
    pace = Pace(64)
    for _ in range(10):
        pace.note(1, each_row_dearer(1))
    limits = run(pace, each_row_dearer, 100)
    assert pace.limit == 1
    assert max(limits) == 4


def test_stays_where_the_cache_is_full() -> None:
    """Rows cost the same up to 8, and twice as much beyond."""

    def cost(rows: int) -> float:
        return 0.001 + (0.0001 * rows if rows <= 8 else 0.002 * rows)

    pace = Pace(64)
    limits = run(pace, cost, 200)
    assert pace.limit == 8
    assert max(limits) == 16


def test_steps_over_a_size_that_brings_nothing() -> None:
    """As ResNet-18 in int8: two rows cost what one does, four less."""
    costs = {1: 0.00536, 2: 0.00535, 4: 0.00511, 8: 0.00510, 16: 0.00510}
    pace = Pace(64)
    limits = run(pace, lambda rows: costs[rows] * rows, 200)
    assert pace.limit == 4
    assert max(limits) == 8


@pytest.mark.parametrize("most", [2, 64])
def test_comes_down_from_where_a_slow_beginning_led(most: int) -> None:
    """The first runs of one row had a neighbour; later ones, now and then, do not."""
    pace = Pace(most)
    for _ in range(5):
        pace.note(1, 3 * each_row_dearer(1))
    for _ in range(100):
        run(pace, each_row_dearer, 9)
        pace.note(1, each_row_dearer(1))
    assert pace.limit == 1


def test_a_size_that_never_comes_together_is_given_up_with_the_one_below() -> None:
    """Two rows are not worth it, and there are no more than two callers."""
    pace = Pace(64)
    for _ in range(100):
        pace.note(1, each_row_dearer(1))
        pace.note(min(2, pace.limit), each_row_dearer(min(2, pace.limit)))
    assert pace.limit == 1


def test_what_is_compared_is_the_cost_and_what_is_expected_the_time() -> None:
    pace = Pace(8)
    for _ in range(20):
        pace.note(1, 0.001, 0.001)
        pace.note(pace.limit, 0.001 * pace.limit * 2, 0.0005 * pace.limit)
    assert pace.limit > 1
    assert pace.expected_seconds(1) == pytest.approx(0.001)
    assert pace.expected_seconds(2) == pytest.approx(0.004)


def test_tries_again_after_growing_pauses() -> None:
    def cost(rows: int) -> float:
        return 0.001 + (0.0001 * rows if rows <= 8 else 0.002 * rows)

    pace = Pace(64)
    limits = run(pace, cost, 8 * MANY)
    tries = [place for place in range(1, len(limits)) if limits[place] > 8 >= limits[place - 1]]
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(pauses) >= 3
    assert all(later > 1.5 * earlier for earlier, later in pairwise(pauses))
    assert sum(limit > 8 for limit in limits) < len(limits) / 50


def test_climbs_later_when_what_kept_it_down_is_gone() -> None:
    neighbour = True

    def cost(rows: int) -> float:
        return fixed_and_a_little(rows) * (rows**2 if neighbour and rows > 4 else 1)

    pace = Pace(32)
    run(pace, cost, 100)
    assert pace.limit == 4
    neighbour = False
    run(pace, cost, MANY)
    assert pace.limit == 32


def test_a_first_run_that_took_long_is_not_held_against_its_size() -> None:
    """The first run of a size makes room for itself, which the next find made."""
    seen: set[int] = set()

    def cost(rows: int) -> float:
        first, _ = rows not in seen, seen.add(rows)
        return fixed_and_a_little(rows) * (20 if first else 1)

    pace = Pace(32)
    limits = run(pace, cost, 200)
    assert pace.limit == 32
    assert limits == sorted(limits)


def test_runs_that_are_not_full_change_no_limit() -> None:
    pace = Pace(64)
    for _ in range(MANY):
        pace.note(1, 0.001)
    assert pace.limit == 2


def test_a_limit_of_one_row_can_be_left_again() -> None:
    pace = Pace(8)
    pace.note(1, 0.001)
    run(pace, lambda rows: 0.001 * rows**2, 20)
    assert pace.limit == 1
    assert max(run(pace, fixed_and_a_little, MANY)) == 8


def test_knows_nothing_before_the_first_run() -> None:
    assert Pace(8).expected_seconds(1) is None


def test_expects_of_a_size_what_it_took_before() -> None:
    pace = Pace(8)
    pace.note(4, 0.008)
    assert pace.expected_seconds(4) == pytest.approx(0.008)
    assert pace.expected_seconds(3) == pytest.approx(0.006)


def test_expects_of_an_unknown_size_what_the_nearest_took_by_the_row() -> None:
    pace = Pace(64)
    pace.note(1, 0.001)
    pace.note(8, 0.002)
    assert pace.expected_seconds(64) == pytest.approx(0.016)
    assert pace.expected_seconds(2) == pytest.approx(0.002)
