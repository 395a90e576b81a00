"""What the same answer means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.agreement import Comparison, Energy, Equality, TopOne, agreement_for

SCORES = np.array([[0.1, 2.0, 0.3], [3.0, 1.0, 1.0], [0.0, 0.5, 4.0], [1.0, 0.0, -1.0]])


def test_scores_agree_where_the_largest_is_in_the_same_place() -> None:
    other = SCORES.copy()
    other[0] = [5, 1, 1]
    comparison = Comparison()
    comparison.add({"y": SCORES}, {"y": other})
    assert comparison.value == 0.75


def test_values_agree_by_the_share_of_energy_reproduced() -> None:
    """1 - (1 + 4) / (9 + 16) = 0.8."""
    agreement = Energy()
    agreement.add(np.array([[3.0, 4.0]]), np.array([[4.0, 2.0]]))
    assert agreement.value == pytest.approx(0.8)


def test_integers_agree_where_they_are_equal() -> None:
    comparison = Comparison()
    comparison.add({"y": np.array([1, 2, 3, 4])}, {"y": np.array([1, 2, 0, 0])})
    assert comparison.value == 0.5


def test_the_worst_output_decides() -> None:
    comparison = Comparison()
    comparison.add({"a": SCORES, "b": np.array([1, 2])}, {"a": SCORES, "b": np.array([1, 0])})
    assert comparison.value == 0.5


@given(parts=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_the_agreement_of_parts_is_that_of_the_whole(parts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    expected = [random.standard_normal((rows, 4)) for rows in parts]
    actual = [rows + random.standard_normal(rows.shape) * 0.5 for rows in expected]
    for kind in (TopOne, Energy):
        whole, pieces = kind(), kind()
        whole.add(np.concatenate(expected), np.concatenate(actual))
        for one, other in zip(expected, actual, strict=True):
            pieces.add(one, other)
        assert pieces.value == pytest.approx(whole.value)


def test_embeddings_are_compared_as_values_and_distributions_as_scores() -> None:
    embeddings = SCORES / np.linalg.norm(SCORES, axis=1, keepdims=True)
    certain = np.eye(3)
    assert isinstance(agreement_for(embeddings), Energy)
    assert isinstance(agreement_for(certain), TopOne)
    assert isinstance(agreement_for(SCORES), TopOne)
    assert isinstance(agreement_for(SCORES, "values"), Energy)
    assert isinstance(agreement_for(embeddings, "top1"), TopOne)
    assert isinstance(agreement_for(SCORES[:, :1]), Energy)
    assert isinstance(agreement_for(SCORES[None]), Energy)
    assert isinstance(agreement_for(np.array(["a"], dtype=object)), Equality)


def test_a_value_that_is_no_longer_finite_means_broken() -> None:
    broken = SCORES.copy()
    broken[1, 1] = np.nan
    with pytest.raises(ModelError, match="'y' holds 1 values that are not finite"):
        Comparison().add({"y": SCORES}, {"y": broken})


def test_where_the_baseline_is_not_finite_nothing_is_compared() -> None:
    masked = np.array([[1.0, -np.inf]])
    agreement = Energy()
    agreement.add(masked, np.array([[1.0, -1e9]]))
    assert agreement.value == 1.0


def test_another_shape_means_broken() -> None:
    with pytest.raises(ModelError, match=r"shape \[4, 2\] instead of \[4, 3\]"):
        Comparison().add({"y": SCORES}, {"y": SCORES[:, :2]})
