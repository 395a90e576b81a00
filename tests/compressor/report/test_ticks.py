import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.report.ticks import log_ticks


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
