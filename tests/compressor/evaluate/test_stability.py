"""A long run, with a clock and a memory that the test moves."""

from collections.abc import Callable

import numpy as np
import pytest

from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.stability import run_for_long, same_bits, slope

ANSWER = {"y": np.array([1.0, np.nan], dtype=np.float32)}


class Clock:
    """Time passes only in the model."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs = 0

    def __call__(self) -> float:
        return self.now

    def model(
        self, seconds: Callable[[int], float] = lambda _: 0.1, answer: Callable[[int], float] = lambda _: 1.0
    ) -> Callable[[], dict[str, np.ndarray]]:
        def ask() -> dict[str, np.ndarray]:
            self.runs += 1
            self.now += seconds(self.runs)
            return {"y": np.array([answer(self.runs)])}

        return ask


def test_a_steady_model_is_steady() -> None:
    clock = Clock()
    found = run_for_long(clock.model(lambda _: 0.125), 12.5, clock=clock)
    assert (found.runs, found.equal_answers, found.equal_under_concurrency) == (100, True, True)
    assert (found.equal_across_threads, found.bytes_per_run) == (None, 0.0)
    assert found.drift == pytest.approx(1)


def test_a_model_that_slows_down_drifts() -> None:
    clock = Clock()
    found = run_for_long(clock.model(lambda run: 0.1 if run <= 50 else 0.2), 15.0, clock=clock)
    assert found.drift == pytest.approx(2)


def test_an_answer_that_changes_once_is_noticed() -> None:
    clock = Clock()
    assert not run_for_long(clock.model(answer=lambda run: float(run == 60)), 10.0, clock=clock).equal_answers


def test_a_leak_is_a_slope() -> None:
    clock = Clock()
    found = run_for_long(clock.model(), 10.0, memory=lambda: 1000 * clock.runs, clock=clock)
    assert found.bytes_per_run == pytest.approx(1000)


def test_a_session_with_other_threads_is_compared() -> None:
    clock = Clock()
    same, other = lambda: {"y": np.array([1.0])}, lambda: {"y": np.array([1.0 + 1e-15])}
    assert run_for_long(clock.model(), 1.0, same, clock=clock).equal_across_threads
    assert run_for_long(clock.model(), 1.0, other, clock=clock).equal_across_threads is False


def test_a_slow_model_still_runs_forty_times() -> None:
    clock = Clock()
    assert run_for_long(clock.model(lambda _: 60.0), 1.0, clock=clock).runs == 40


def test_a_failure_under_concurrency_is_told() -> None:
    clock = Clock()

    def failing() -> dict[str, np.ndarray]:
        if clock.runs > 40:
            raise ModelError("It broke.")
        return clock.model()()

    with pytest.raises(ModelError, match="It broke"):
        run_for_long(failing, 1.0, clock=clock)


def test_bits_are_compared_and_not_values() -> None:
    assert same_bits(ANSWER, {"y": ANSWER["y"].copy()})
    assert not same_bits({"y": np.array([0.0])}, {"y": np.array([-0.0])})
    assert not same_bits({"y": np.zeros((1, 2))}, {"y": np.zeros((2, 1))})
    words = {"y": np.array(["a", "b"], dtype=object)}
    assert same_bits(words, {"y": np.array(["a", "b"], dtype=object)})


def test_a_slope_is_that_of_least_squares_and_never_negative() -> None:
    assert slope([(0, 0), (1, 3), (2, 3)]) == pytest.approx(1.5)
    assert slope([(0, 9), (1, 3), (2, 0)]) == 0
    assert slope([(0, 0), (5, 100)]) == 0
