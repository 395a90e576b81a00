"""The slope of memory, and how sure it is."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress
from scipy.stats import t as student

from benchmarks.soak import slope, slope_interval


def test_the_interval_is_that_of_least_squares_where_residuals_change_sign() -> None:
    xs = np.arange(40.0)
    ys = 3 * xs + np.where(np.arange(40) % 2, 1.0, -1.0)
    reference: Any = linregress(xs, ys)
    half = student.ppf(0.975, 38) * reference.stderr
    assert slope_interval(xs.tolist(), ys.tolist()) == pytest.approx(
        (reference.slope - half, reference.slope + half)
    )
    assert slope(xs.tolist(), ys.tolist()) == pytest.approx(reference.slope)


def test_it_is_wider_where_residuals_follow_one_another() -> None:
    xs, noise = np.arange(400.0), np.random.default_rng(3).normal(size=400)
    walk = np.zeros(400)
    for index in range(1, 400):
        walk[index] = 0.9 * walk[index - 1] + noise[index]
    least, most = slope_interval(xs.tolist(), walk.tolist())
    reference: Any = linregress(xs, walk)
    plain = 2 * student.ppf(0.975, 398) * reference.stderr
    assert most - least > 2 * plain
    assert least < 0 < most


@pytest.mark.parametrize("xs", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_there_is_none_without_three_places(xs: list[float]) -> None:
    assert slope_interval(xs, xs) == (0.0, 0.0)
