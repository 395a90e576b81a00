import pytest

from flyweight.server.runtime.process.restarts import HangWatch, deaths_in_a_row, delay_seconds


def test_the_pause_doubles_from_a_second_to_a_minute() -> None:
    assert [delay_seconds(deaths) for deaths in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay_seconds(10_000) == 60


@pytest.mark.parametrize(("lived_seconds", "deaths"), [(0.0, 4), (59.9, 4), (60.0, 1)])
def test_a_worker_that_lived_a_minute_has_made_up_for_those_before(lived_seconds: float, deaths: int) -> None:
    assert deaths_in_a_row(3, lived_seconds) == deaths


def test_a_run_that_uses_no_processor_for_a_minute_is_hung() -> None:
    watch = HangWatch()
    looks = [watch.is_hung(now, (1, 5), 2.5) for now in (0.0, 10.0, 59.0, 60.0)]
    assert looks == [False, False, False, True]


@pytest.mark.parametrize(
    ("runs", "cpu_seconds"), [((1, 6), 2.5), ((1, 5), 2.51), ((0, 5), 2.5), ((1, 5), None)]
)
def test_a_new_run_or_a_tick_of_the_processor_or_idleness_is_a_sign_of_life(
    runs: tuple[int, int], cpu_seconds: float | None
) -> None:
    watch = HangWatch()
    watch.is_hung(0.0, (1, 5), 2.5)
    assert not watch.is_hung(60.0, runs, cpu_seconds)
    assert not watch.is_hung(119.0, runs, cpu_seconds)
