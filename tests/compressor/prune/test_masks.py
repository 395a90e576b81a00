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
    lamp_scores,
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


def test_lamp_scores_are_each_weights_part_of_what_is_left() -> None:
    # Squares 1, 4 and 9: 1 of 14, 4 of the 13 that are left then, 9 of 9.
    found = lamp_scores(np.array([[2.0], [1.0], [3.0]]))
    assert found == pytest.approx(np.array([[4 / 13], [1 / 14], [1.0]]))


def test_of_equals_the_first_has_the_least_lamp_score() -> None:
    assert lamp_scores(np.array([2.0, 2.0, 2.0])).tolist() == pytest.approx([1 / 3, 1 / 2, 1.0])


def test_what_is_gone_keeps_its_negative_lamp_score_and_counts_for_nothing() -> None:
    assert lamp_scores(np.array([-1.0, 0.0, 1.0, 2.0])).tolist() == pytest.approx([-1.0, 0.0, 0.2, 1.0])
    assert lamp_scores(np.array([-1.0, -1.0])).tolist() == [-1.0, -1.0]
    assert lamp_scores(np.zeros(2)).tolist() == [0.0, 0.0]


@given(SCORES)
def test_lamp_scores_are_what_the_equation_says(scores: np.ndarray) -> None:
    flat = [float(score) for score in scores.ravel()]
    order = sorted(range(len(flat)), key=lambda at: (flat[at], at))
    slow = np.zeros(len(flat))
    for rank, u in enumerate(order):
        left = sum(flat[v] ** 2 for v in order[rank:])
        slow[u] = flat[u] ** 2 / left if left else 0.0
    assert lamp_scores(scores).ravel() == pytest.approx(slow)


@given(SCORES, st.sampled_from([2.0**-8, 0.5, 4.0, 2.0**8]))
def test_lamp_scores_do_not_change_with_the_scale_of_a_layer(scores: np.ndarray, scale: float) -> None:
    whole = scores.astype(np.float64)
    assert np.array_equal(lamp_scores(whole * scale), lamp_scores(whole))


@given(
    st.lists(
        arrays.arrays(np.float32, st.integers(1, 8), elements=st.floats(0.125, 10, width=32)), min_size=1
    )
)
def test_something_stays_in_every_layer_while_as_many_weights_stay_as_there_are_layers(
    layers: list[np.ndarray],
) -> None:
    total = sum(layer.size for layer in layers)
    masks = keep_largest_together([lamp_scores(layer) for layer in layers], 1 - len(layers) / total)
    assert [int(mask.sum()) for mask in masks] == [1] * len(layers)
