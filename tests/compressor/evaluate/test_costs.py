"""Load time and energy, with clocks that the test moves."""

import pytest

from flyweight.compressor.evaluate.energy import estimate_energy
from flyweight.compressor.evaluate.load_time import time_loading


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.order = ""

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.order += name
        self.now += seconds


def test_load_time_is_the_median_of_builds_in_turns_after_one_that_does_not_count() -> None:
    clock = Clock()
    found = time_loading(
        lambda: clock.work("b", 0.4),
        lambda: clock.work("v", 0.1 if clock.order.count("v") else 9),
        0.0,
        clock,
    )
    assert (found.seconds, found.baseline_seconds) == (pytest.approx(0.1), pytest.approx(0.4))
    assert (found.ratio, found.rounds, clock.order) == (pytest.approx(4), 3, "bvvbbvvb")


def test_no_more_than_fifteen_builds_are_timed() -> None:
    clock = Clock()
    assert time_loading(lambda: clock.work("b", 0), lambda: clock.work("v", 0), 1.0, clock).rounds == 15


def test_energy_is_processor_time_by_watts(tmp_path) -> None:
    """20 ms of processor time a run, at 3.5 W, are 70 mJ."""
    clock, cpu = Clock(), Clock()

    def run() -> None:
        clock.work("r", 0.01)
        cpu.work("r", 0.02)

    found = estimate_energy(run, 0.1, tmp_path, clock, cpu)
    assert found.joules == pytest.approx(0.07)
    assert found.cpu_seconds == pytest.approx(0.02)
    assert found.method == "processor seconds x 3.5 W for a busy virtual processor"


def test_a_readable_counter_is_preferred(tmp_path) -> None:
    """50,000 uJ a run."""
    clock = Clock()
    counter = tmp_path / "energy_uj"
    counter.write_text("1000\n")

    def run() -> None:
        clock.work("r", 0.01)
        counter.write_text(f"{int(counter.read_text()) + 50_000}\n")

    found = estimate_energy(run, 0.1, tmp_path, clock, clock)
    assert found.joules == pytest.approx(0.05)
    assert "RAPL" in found.method


def test_a_counter_that_wrapped_round_is_not_believed(tmp_path) -> None:
    clock = Clock()
    (tmp_path / "energy_uj").write_text("999")

    def run() -> None:
        clock.work("r", 0.01)
        (tmp_path / "energy_uj").write_text("5")

    (tmp_path / "energy_uj").write_text("x")
    assert "RAPL" not in estimate_energy(run, 0.1, tmp_path, clock, clock).method
