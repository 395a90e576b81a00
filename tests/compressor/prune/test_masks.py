"""Which weights stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.prune.masks import (
    Pattern,
    keep_above,
    keep_largest,
    keep_largest_together,
    keep_n_of_m,
    parse_pattern,
)

SCORES = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=1, max_dims=3), elements=st.floats(0, 10, width=32)
)


def test_a_threshold_keeps_what_is_above_it() -> None:
    assert keep_above(np.array([0.1, 0.5, 0.6]), 0.5).tolist() == [False, False, True]


def test_a_ratio_removes_the_smallest() -> None:
    mask = keep_largest(np.array([[3.0, 0.5], [2.0, 1.0]]), 0.5)
    assert mask.tolist() == [[True, False], [True, False]]


def test_of_equals_the_first_go() -> None:
    assert keep_largest(np.ones(4), 0.5).tolist() == [False, False, True, True]


@given(SCORES, st.floats(0, 0.99))
def test_a_ratio_removes_exactly_that_many_and_none_larger_than_what_stays(
    scores: np.ndarray, ratio: float
) -> None:
    mask = keep_largest(scores, ratio)
    assert int((~mask).sum()) == round(ratio * scores.size)
    if mask.any() and not mask.all():
        assert scores[~mask].max() <= scores[mask].min()


@given(SCORES, st.floats(0, 0.99))
def test_a_ratio_is_what_sorting_would_do(scores: np.ndarray, ratio: float) -> None:
    slow = np.ones(scores.size, dtype=bool)
    slow[np.argsort(scores.ravel(), kind="stable")[: round(ratio * scores.size)]] = False
    assert np.array_equal(keep_largest(scores, ratio).ravel(), slow)


def test_one_threshold_cuts_across_layers() -> None:
    small, large = keep_largest_together([np.array([1.0, 2.0]), np.array([[30.0, 40.0]])], 0.5)
    assert small.tolist() == [False, False]
    assert large.tolist() == [[True, True]]


def test_nothing_is_removed_by_a_ratio_of_zero() -> None:
    assert all(mask.all() for mask in keep_largest_together([np.zeros(3), np.ones((2, 2))], 0.0))


def test_two_of_four_stay_along_the_input_channels() -> None:
    mask = keep_n_of_m(np.array([[1.0, 4.0, 3.0, 2.0], [9.0, 8.0, 7.0, 6.0]]), Pattern(2, 4), axis=1)
    assert mask.tolist() == [[False, True, True, False], [True, True, False, False]]


def test_what_is_left_over_of_a_pattern_stays_whole() -> None:
    assert keep_n_of_m(np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.0]), Pattern(1, 4), axis=0).tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 3)),
        elements=st.floats(0, 10, width=32),
    ),
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4)]),
    st.integers(0, 2),
)
def test_every_group_of_m_keeps_n_and_the_largest(
    scores: np.ndarray, pattern: tuple[int, int], axis: int
) -> None:
    kept, of = pattern
    mask = np.moveaxis(keep_n_of_m(scores, Pattern(kept, of), axis), axis, -1)
    ordered = np.moveaxis(scores, axis, -1)
    for index in np.ndindex(mask.shape[:-1]):
        for start in range(0, mask.shape[-1] // of * of, of):
            inside, values = mask[index][start : start + of], ordered[index][start : start + of]
            assert inside.sum() == kept
            assert values[inside].min() >= values[~inside].max()


def test_a_pattern_is_read_as_the_field_writes_it() -> None:
    assert parse_pattern(" 2:4") == Pattern(2, 4)
    assert Pattern(1, 4).ratio == 0.75


@pytest.mark.parametrize("text", ["2-4", "0:4", "4:4", "5:4", "", "a:b"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="pattern"):
        parse_pattern(text)
