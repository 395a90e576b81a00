"""Whether a variant stays what it is when it runs for long: same answers, same memory, same pace."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import ModelError

Array = NDArray[Any]
Answers = Mapping[str, Array]
Ask = Callable[[], Answers]
Clock = Callable[[], float]

# Quarters of fewer runs say nothing.
_FEWEST_RUNS: Final = 40
_MOST_RUNS: Final = 100_000
_MEMORY_READINGS: Final = 20
_CONCURRENT: Final = 2


@dataclass(frozen=True, slots=True)
class Stability:
    """What a long run showed.

    Attributes:
        runs: of the same input.
        seconds: they took.
        equal_answers: whether every answer had the same bits as the first.
        equal_under_concurrency: whether runs from two threads at once gave the same bits; a server does that.
        equal_across_threads: whether a session with twice the threads inside operators gives the same bits;
            None when not tried. Sums added up in another order may differ in the last bit: no fault, but good
            to know.
        bytes_per_run: slope of the process's private memory over the second half of the runs; at least 0.
        drift: median time of the last quarter of runs over that of the first: 1 is steady.
    """

    runs: int
    seconds: float
    equal_answers: bool
    equal_under_concurrency: bool
    equal_across_threads: bool | None
    bytes_per_run: float
    drift: float


def run_for_long(
    ask: Ask,
    budget_seconds: float,
    other_threads: Ask | None = None,
    memory: Callable[[], int] = lambda: 0,
    clock: Clock = time.perf_counter,
) -> Stability:
    """Repeat one inference for about `budget_seconds`, and at least 40 times.

    Args:
        ask: runs the variant on one fixed input and returns its outputs.
        budget_seconds: of running from one thread.
        other_threads: the same by a session with another number of threads inside operators.
        memory: returns the private bytes of this process.
        clock: of the wall.

    Raises:
        ModelError: the model fails.
    """
    first = ask()
    times, readings = list[float](), list[tuple[int, int]]()
    equal, started = True, clock()
    next_reading, step = 0.0, budget_seconds / _MEMORY_READINGS
    while len(times) < _MOST_RUNS:
        begun = clock()
        answers = ask()
        now = clock()
        times.append(now - begun)
        equal = equal and same_bits(first, answers)
        if now - started >= next_reading:
            readings.append((len(times), memory()))
            next_reading += max(step, 1e-3)
        if len(times) >= _FEWEST_RUNS and now - started >= budget_seconds:
            break
    quarter = len(times) // 4
    return Stability(
        runs=len(times),
        seconds=clock() - started,
        equal_answers=equal,
        equal_under_concurrency=_equal_from_threads(first, ask),
        equal_across_threads=None if other_threads is None else same_bits(first, other_threads()),
        bytes_per_run=slope(readings[len(readings) // 2 :]),
        drift=median(times[-quarter:]) / max(median(times[:quarter]), 1e-9),
    )


def same_bits(first: Answers, second: Answers) -> bool:
    """Tell whether all outputs are equal to the last bit."""
    return all(
        first[name].shape == second[name].shape and _bits(first[name]) == _bits(second[name])
        for name in first
    )


def _bits(array: Array) -> bytes:
    # The bytes of an array of strings are addresses.
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def slope(readings: list[tuple[int, int]]) -> float:
    """Return the least-squares slope of (place, value) pairs, at least 0; 0 for fewer than three."""
    if len(readings) < 3:
        return 0.0
    places, values = np.array(readings, dtype=np.float64).T
    centred = places - places.mean()
    return max(0.0, float(centred @ (values - values.mean()) / (centred @ centred)))


def _equal_from_threads(first: Answers, ask: Ask) -> bool:
    """Run from two threads at once, ten times each; they end before this returns."""
    verdicts, failures = list[bool](), list[ModelError]()

    def work() -> None:
        try:
            verdicts.extend(same_bits(first, ask()) for _ in range(10))
        except ModelError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, name=f"stability-{place}") for place in range(_CONCURRENT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return all(verdicts)
