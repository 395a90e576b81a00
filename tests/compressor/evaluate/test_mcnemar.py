"""McNemar's test against published examples and a slower form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.evaluate.mcnemar import mcnemar


def test_the_example_of_the_paper_that_recommends_mid_p() -> None:
    """Fagerland 2013, airway data of Bentur et al.: 1 and 7 discordant pairs; exact 0.070, mid-p 0.039."""
    found = mcnemar(better=1, worse=7)
    assert found.exact_p_value == pytest.approx(0.0703125)
    assert found.p_value == pytest.approx(0.0390625)


def test_a_large_difference_is_no_chance() -> None:
    """121 against 59 pairs, the textbook example: chi-squared 21.35, p about 4e-6."""
    assert mcnemar(59, 121).exact_p_value == pytest.approx(4.4e-6, rel=0.05)


@pytest.mark.parametrize("count", [0, 1, 7, 600])
def test_as_many_won_as_lost_says_nothing(count: int) -> None:
    assert mcnemar(count, count).p_value == pytest.approx(1)
    assert mcnemar(count, count).exact_p_value == 1


def test_one_pair_alone_says_nothing() -> None:
    assert (mcnemar(0, 1).exact_p_value, mcnemar(0, 1).p_value) == (1.0, 0.5)


@given(better=st.integers(0, 40), worse=st.integers(0, 40))
def test_it_is_the_sum_over_all_outcomes_as_unlikely(better: int, worse: int) -> None:
    trials = better + worse
    weights = [math.comb(trials, count) / 2**trials for count in range(trials + 1)]
    tail = sum(weights[: min(better, worse) + 1])
    found = mcnemar(better, worse)
    assert found.exact_p_value == pytest.approx(min(1, 2 * tail))
    assert found.p_value <= found.exact_p_value
    assert found.p_value == pytest.approx(mcnemar(worse, better).p_value)


def test_thousands_of_pairs_do_not_overflow() -> None:
    """Against the normal approximation: z = 200 / sqrt(5000) = 2.828, p = 0.00468."""
    assert mcnemar(2400, 2600).p_value == pytest.approx(0.00468, rel=0.02)
