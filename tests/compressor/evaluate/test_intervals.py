"""Intervals of shares and of paired differences, against published numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.evaluate.intervals import paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (950, 1000, 0.9347, 0.9619)],
)
def test_wilsons_interval_is_that_of_the_tables(
    successes: int, samples: int, low: float, high: float
) -> None:
    assert wilson(successes, samples) == pytest.approx((low, high), abs=1e-4)


def test_bonett_and_prices_interval_is_as_computed_by_hand() -> None:
    """The airway data of Bentur et al.: 1 and 7 discordant pairs of 21, so (1+1)/23 and (7+1)/23."""
    gained, lost = 2 / 23, 8 / 23
    reach = 1.959964 * ((gained + lost - (gained - lost) ** 2) / 23) ** 0.5
    low, high = paired_difference(better=1, worse=7, samples=21)
    assert (low, high) == pytest.approx((gained - lost - reach, gained - lost + reach), abs=1e-6)
    assert (low, high) == pytest.approx((-0.5084, -0.0134), abs=1e-4)


def test_models_that_never_differ_leave_an_interval_that_shrinks_with_the_samples() -> None:
    few, many = paired_difference(0, 0, 20), paired_difference(0, 0, 2000)
    assert few[0] == pytest.approx(-few[1])
    assert many[1] < few[1] / 50


@given(samples=st.integers(1, 5000), data=st.data())
def test_an_interval_holds_its_share_and_stays_between_0_and_1(samples: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, samples))
    low, high = wilson(successes, samples)
    assert 0 <= low <= successes / samples + 1e-12
    assert successes / samples - 1e-12 <= high <= 1


@given(better=st.integers(0, 50), worse=st.integers(0, 50), same=st.integers(1, 500))
def test_swapping_the_models_turns_the_interval_round(better: int, worse: int, same: int) -> None:
    samples = better + worse + same
    low, high = paired_difference(better, worse, samples)
    assert paired_difference(worse, better, samples) == pytest.approx((-high, -low))
