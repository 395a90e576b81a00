import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.report.ticks import log_ticks, wide_enough


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9, 1200, [1, 10, 100, 1000]), (0.15, 5.5, [0.2, 0.5, 1, 2, 5])],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-3, 1e6), st.floats(1.01, 1e4))
def test_there_are_at_least_two_ticks_and_all_are_inside(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert len(ticks) >= 2
    assert all(low <= tick <= low * factor for tick in ticks)


def test_a_short_axis_has_few_ticks() -> None:
    assert log_ticks(0.0073, 0.0146) == pytest.approx([0.0075, 0.009, 0.0105, 0.012, 0.0135])


def test_an_axis_of_equal_figures_spans_a_factor_of_two() -> None:
    assert wide_enough(4.0, 4.0) == pytest.approx((4 / 2**0.5, 4 * 2**0.5))
    assert wide_enough(1.0, 10.0) == (1.0, 10.0)
