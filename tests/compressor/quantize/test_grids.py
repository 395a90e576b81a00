"""The values that weights of few bits may take."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flyweight.compressor.passes.quantize.grids import codebook, power_of_two, uniform

ROWS = np.array([[-1.0, -0.4, 0.0, 0.5, 0.7], [10.0, 2.0, -3.0, 4.0, 0.0]], dtype=np.float32)
FINITE = st.floats(-100, 100, width=32)


def test_three_bits_around_zero_are_seven_values() -> None:
    steps = uniform(ROWS[:1], 3, symmetric=True, per_channel=True)
    assert steps.codes.tolist() == [[-3, -1, 0, 2, 2]]
    assert steps.scales[0, 0] == pytest.approx(1 / 3)
    assert steps.zeros.tolist() == [[0]]


def test_two_bits_from_the_lowest_to_the_highest_are_four_values() -> None:
    steps = uniform(np.array([[-1.0, 0.0, 2.0]]), 2, symmetric=False, per_channel=True)
    assert steps.codes.tolist() == [[0, 1, 3]]
    assert steps.values.tolist() == [[-1.0, 0.0, 2.0]]


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    steps = uniform(np.array([[3.0, -1.0, 2.0, 0.0]]), 1, symmetric=True, per_channel=True)
    assert steps.values.tolist() == [[1.5, -1.5, 1.5, 1.5]]


def test_one_scale_for_all_is_the_largest_rows() -> None:
    scales = uniform(ROWS, 8, symmetric=True, per_channel=False).scales
    assert scales.ravel().tolist() == pytest.approx([10 / 127, 10 / 127])


@given(arrays(np.float32, (3, 7), elements=FINITE), st.integers(2, 8), st.booleans(), st.booleans())
@example(np.full((3, 7), 1e-45, np.float32), 2, False, False)
@example(np.full((3, 7), 1e-45, np.float32), 8, True, True)
@settings(max_examples=60)
def test_no_weight_moves_by_more_than_half_a_step(rows, bits: int, symmetric: bool, per_channel: bool):
    steps = uniform(rows, bits, symmetric=symmetric, per_channel=per_channel)
    # The zero point of an asymmetric grid is rounded too, which moves the ends by half a step more.
    allowed = steps.scales * (0.5 if symmetric else 1.0) * 1.001 + 1e-6
    assert (np.abs(rows - steps.values) <= allowed).all()
    lowest, highest = (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    assert lowest <= steps.codes.min()
    assert steps.codes.max() <= highest


def test_powers_of_two_of_the_paper() -> None:
    """n1 = floor(log2(4 / 3)) = 0 and, for 4 bits, n2 = 0 + 1 - 4 = -3."""
    found = power_of_two(np.array([1.0, -0.74, 0.76, 0.2, -0.06, 0.07]), 4)
    assert found.table.tolist() == [-1.0, -0.5, -0.25, -0.125, 0.0, 0.125, 0.25, 0.5, 1.0]
    assert found.values.tolist() == [1.0, -0.5, 1.0, 0.25, 0.0, 0.125]


def test_two_bits_of_powers_are_one_magnitude_and_zero() -> None:
    assert power_of_two(np.array([-2.0, 0.1, 1.9]), 2).table.tolist() == [-2.0, 0.0, 2.0]


def test_powers_of_weights_too_small_for_one_are_zeros() -> None:
    assert power_of_two(np.full(4, 1e-45, np.float32), 5).values.tolist() == [0, 0, 0, 0]


def test_powers_of_nothing_but_zeros() -> None:
    assert power_of_two(np.zeros(4), 5).values.tolist() == [0, 0, 0, 0]


@given(arrays(np.float32, 20, elements=FINITE), st.integers(2, 8))
@settings(max_examples=60)
def test_powers_are_powers_and_keep_the_sign(values, bits: int) -> None:
    found = power_of_two(values, bits).values
    moved = found[found != 0]
    assert (np.log2(np.abs(moved)) % 1 == 0).all()
    assert (np.sign(found) * np.sign(values) >= 0).all()


def test_a_codebook_of_enough_entries_changes_nothing() -> None:
    values = np.array([[0.5, -1.0], [3.0, 0.5]], dtype=np.float32)
    assert codebook(values, 2).values.tolist() == values.tolist()
    assert len(codebook(values, 1).table) == 2
