"""Choosing ranges from a stream of values."""

import numpy as np
import pytest

from flyweight.compressor.passes.quantize.histogram import (
    BINS,
    Extremes,
    Histogram,
    divergence,
    squared_error,
)


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram(float(values.min()), float(values.max()))
    histogram.add(values)
    return histogram


def test_extremes_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    extremes = Extremes()
    for part in np.split(values, 10):
        extremes.add(part)
    assert (extremes.low, extremes.high) == (values.min(), values.max())


def test_what_is_not_finite_says_nothing_about_a_range() -> None:
    extremes = Extremes()
    extremes.add(np.array([np.inf, np.nan]))
    assert not extremes.seen
    extremes.add(np.array([1.0, -np.inf, 3.0]))
    assert (extremes.low, extremes.high) == (1.0, 3.0)


def test_all_percent_is_the_whole_range() -> None:
    values = np.random.default_rng(0).standard_normal(10_000)
    assert histogram_of(values).percentile_range(100) == pytest.approx((values.min(), values.max()))


def test_a_percentile_is_numpys_to_the_width_of_a_bin() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    low, high = histogram_of(values).percentile_range(99)
    width = (values.max() - values.min()) / BINS
    assert low == pytest.approx(np.percentile(values, 0.5), abs=2 * width)
    assert high == pytest.approx(np.percentile(values, 99.5), abs=2 * width)


def test_an_outlier_is_clipped_by_percentile_and_by_entropy() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [60.0]])
    assert histogram_of(values).percentile_range(99.99)[1] < 6
    assert histogram_of(values).entropy_range()[1] < 12


def test_entropy_keeps_a_uniform_distribution_whole() -> None:
    low, high = histogram_of(np.linspace(-1, 1, 100_000)).entropy_range()
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


def test_zeros_after_a_relu_do_not_decide() -> None:
    values = np.maximum(np.random.default_rng(0).normal(0, 1, 100_000), 0)
    assert histogram_of(values).entropy_range()[1] > 2.5


def test_as_many_levels_as_bins_lose_nothing() -> None:
    assert divergence(np.arange(1, 129), 128) == pytest.approx(0)


def test_the_divergence_of_two_bins_in_one_level_is_as_computed_by_hand() -> None:
    """256 bins in 128 levels: P = (1, 3)/4 in a pair and Q = (2, 2)/4, so KL = ln(1/2)/4 + 3 ln(3/2)/4."""
    counts = np.tile([1, 3], 128)
    assert divergence(counts, 256) == pytest.approx(np.log(1 / 2) / 4 + 3 * np.log(3 / 2) / 4)


def test_a_single_value_is_its_own_range() -> None:
    histogram = histogram_of(np.full(10, 2.5))
    assert histogram.percentile_range(99) == (2.5, 2.5)
    assert histogram.entropy_range() == (2.5, 2.5)
    assert histogram.mse_range() == (2.5, 2.5)


def test_counts_are_numpys() -> None:
    values = np.random.default_rng(0).standard_normal(5000)
    expected, _ = np.histogram(values, bins=BINS, range=(values.min(), values.max()))
    assert (histogram_of(values).counts == expected).mean() > 0.99
    assert histogram_of(values).counts.sum() == 5000


def test_what_is_not_finite_is_not_counted() -> None:
    histogram = Histogram(0.0, 1.0)
    histogram.add(np.array([np.nan, np.inf, -np.inf, 0.5]))
    assert histogram.counts.sum() == 1


def test_the_squared_error_is_as_computed_by_hand() -> None:
    """Steps of 1 over [0, 255]: 0.4 becomes 0, 256.5 becomes 255; 3 * 0.16 + 1 * 2.25."""
    assert squared_error(np.array([0.4, 256.5]), np.array([3, 1]), 0.0, 255.0) == pytest.approx(2.73)


def test_mse_clips_an_outlier_and_is_never_worse_than_minmax() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 1_000_000), [20.0]])
    low, high = histogram_of(values).mse_range()
    assert high < 12
    assert error_of(values, low, high) <= error_of(values, values.min(), values.max())


def test_mse_keeps_a_uniform_distribution_whole() -> None:
    low, high = histogram_of(np.linspace(-1, 1, 100_000)).mse_range()
    assert (low, high) == pytest.approx((-1, 1), abs=0.03)


def error_of(values: np.ndarray, low: float, high: float) -> float:
    return squared_error(values, np.ones(len(values)), low, high)
