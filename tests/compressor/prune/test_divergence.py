"""How far answers moved."""

import numpy as np
import pytest

from flyweight.compressor.passes.prune.divergence import divergence

LOGITS = np.log(np.array([[0.5, 0.5]], dtype=np.float32))


def test_scores_differ_by_the_divergence_of_their_distributions() -> None:
    found = np.log(np.array([[0.25, 0.75]], dtype=np.float32)) + 3.0
    # 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75)
    assert divergence([LOGITS], [found]) == pytest.approx(0.143841, abs=1e-5)


def test_probabilities_are_taken_as_they_are() -> None:
    before, after = np.array([[0.5, 0.5]], dtype=np.float32), np.array([[0.25, 0.75]], dtype=np.float32)
    assert divergence([before], [after]) == pytest.approx(0.143841, abs=1e-5)


def test_values_differ_by_relative_squares() -> None:
    before, after = np.array([[[3.0]], [[4.0]]]), np.array([[[3.0]], [[5.0]]])
    assert divergence([before], [after]) == pytest.approx(1 / 25)


def test_the_same_answers_have_not_moved() -> None:
    assert divergence([LOGITS, np.ones((1, 3, 2))], [LOGITS, np.ones((1, 3, 2))]) == 0.0


def test_broken_answers_are_infinitely_far() -> None:
    assert divergence([LOGITS], [np.array([[np.nan, 0.0]])]) == float("inf")


def test_integers_do_not_count() -> None:
    assert divergence([np.array([1])], [np.array([2])]) == 0.0


def test_zeros_that_stay_zeros_have_not_moved() -> None:
    assert divergence([np.zeros((2, 1))], [np.zeros((2, 1))]) == 0.0
    assert divergence([np.zeros((2, 1))], [np.ones((2, 1))]) == 1.0
