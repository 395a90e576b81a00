"""How sparse a network is after each round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.prune.schedule import cubic_at, cubic_schedule, require_ratio, require_rounds


def test_the_cubic_schedule_of_four_rounds() -> None:
    # What is left falls with the cube of the rounds to go: three, two and one quarter of them, then none.
    assert cubic_schedule(0.9, 4) == pytest.approx((0.5203125, 0.7875, 0.8859375, 0.9))


def test_half_way_seven_eighths_are_gone() -> None:
    assert [cubic_at(part, 0.8) for part in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.7, 0.8])
    assert cubic_at(0.5, final=0.9, initial=0.5) == pytest.approx(0.85)


def test_one_round_is_one_shot() -> None:
    assert cubic_schedule(0.7, 1) == (0.7,)


def test_it_starts_where_the_network_is() -> None:
    assert cubic_schedule(0.8, 2, initial=0.4) == pytest.approx((0.75, 0.8))


@given(st.floats(0, 0.99), st.integers(1, 50))
def test_it_only_rises_and_ends_at_the_ratio(final: float, rounds: int) -> None:
    steps = cubic_schedule(final, rounds)
    assert len(steps) == rounds
    assert steps[-1] == pytest.approx(final)
    assert list(steps) == sorted(steps)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_an_impossible_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(RecipeError, match="ratio"):
        require_ratio(ratio)


@pytest.mark.parametrize("rounds", [0, 1001])
def test_an_impossible_number_of_rounds_is_refused(rounds: int) -> None:
    with pytest.raises(RecipeError, match="rounds"):
        require_rounds(rounds)
