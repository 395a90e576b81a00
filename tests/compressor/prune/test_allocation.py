"""How much each layer gives."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.passes.prune.allocation import Point, allocate

ROBUST = [Point(0.5, 50, 0.1), Point(0.9, 90, 0.3)]
FRAGILE = [Point(0.5, 50, 1.0), Point(0.9, 90, 5.0)]


def test_the_robust_layer_gives_first() -> None:
    chosen = allocate({"robust": ROBUST, "fragile": FRAGILE}, 90)
    assert (chosen["robust"].ratio, chosen["fragile"].ratio) == (0.9, 0.0)


def test_the_last_step_is_taken_in_part_where_it_must_be_exact() -> None:
    chosen = allocate({"robust": ROBUST, "fragile": FRAGILE}, 100, exactly=True)
    assert chosen["fragile"] == Point(pytest.approx(0.1), pytest.approx(10), pytest.approx(0.2))


def test_nothing_wanted_is_nothing_done() -> None:
    assert allocate({"layer": ROBUST}, 0)["layer"] == Point(0.0, 0.0, 0.0)


def test_a_point_above_the_hull_is_passed_over() -> None:
    points = [Point(0.5, 50, 4.0), Point(0.9, 90, 4.5)]
    assert allocate({"layer": points}, 10)["layer"].ratio == 0.9


def test_what_broke_the_outputs_is_never_chosen() -> None:
    points = [Point(0.5, 50, 1.0), Point(0.9, 90, float("inf"))]
    assert allocate({"layer": points}, 90)["layer"].ratio == 0.5


def test_measured_harm_below_zero_counts_as_none() -> None:
    chosen = allocate({"noise": [Point(0.5, 50, -3.0)], "other": [Point(0.5, 50, 0.0)]}, 100)
    assert [point.harm for point in chosen.values()] == [0.0, 0.0]


def test_a_layer_that_was_not_measured_is_left_alone() -> None:
    assert allocate({"unknown": [], "layer": ROBUST}, 50)["unknown"].ratio == 0.0


CURVE = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=3, unique_by=lambda p: p[0]
)


@given(st.lists(CURVE, min_size=1, max_size=3), st.floats(0, 1))
def test_no_other_choice_saves_as_much_for_less(curves: list[list[tuple[int, int]]], share: float) -> None:
    """What it chose is on the lower hull of all combinations: nothing that saves as much harms less."""
    points = {str(i): [Point(s / 40, s, h) for s, h in curve] for i, curve in enumerate(curves)}
    most = sum(max(point.saved for point in curve) for curve in points.values())
    chosen = allocate(points, share * most)
    saved, harm = sum(p.saved for p in chosen.values()), sum(p.harm for p in chosen.values())
    assert saved >= share * most - 1e-9
    everything = [[Point(0.0, 0.0, 0.0), *curve] for curve in points.values()]
    for combination in product(*everything):
        if sum(p.saved for p in combination) >= saved:
            assert sum(p.harm for p in combination) >= harm - 1e-9
