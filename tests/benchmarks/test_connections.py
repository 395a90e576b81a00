"""What the benchmark of many connections counts, and how many it opens."""

import asyncio
import resource
from typing import Any

import pytest

from benchmarks import connections
from benchmarks.connections import Busy, Churn, Figures, Idle
from benchmarks.serving.callers import Round


class Caller:
    """A connection whose calls end as the test says."""

    def __init__(self) -> None:
        self.connection = self
        self.is_closed = False
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1


def run_round(statuses: list[str], seconds: float) -> tuple[Round, Caller]:
    """Run a round of one caller whose calls end with these statuses, one after the other."""

    async def run() -> tuple[Round, Caller]:
        found, caller = Round(), Caller()
        end: Any = found.end
        running = asyncio.ensure_future(found.run([caller], 1, seconds))  # type: ignore[list-item]
        await asyncio.sleep(0)
        for number, status in enumerate(statuses, start=1):
            caller.is_closed = number == len(statuses)
            end(caller, status, float(number))
        await running
        return found, caller

    return asyncio.run(run())


def test_each_call_is_followed_by_the_next_while_there_is_time() -> None:
    found, caller = run_round(["0", "0", "0"], 60.0)
    assert (found.seconds, caller.begun) == ([1.0, 2.0, 3.0], 3)
    assert found.failures == {}


def test_failures_are_counted_by_status_and_have_no_latency() -> None:
    found, _ = run_round(["8", "0", "8", "broken"], 60.0)
    assert (found.seconds, found.failures) == ([2.0], {"8": 2, "broken": 1})


def test_no_call_is_begun_when_the_time_is_over() -> None:
    found, caller = run_round(["0"], 0.0)
    assert (found.seconds, caller.begun) == ([1.0], 1)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Have a limit of 2,000 open files; return what it is set to."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (500, 2000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    return limits


def test_a_wave_is_as_large_as_fits(files: list[tuple[int, int]]) -> None:
    assert connections.fit_open_files(100, 5000) == 744
    assert connections.fit_open_files(100, 50) == 50
    assert files == [(2000, 2000)] * 2


def test_more_connections_than_fit_are_refused_with_what_to_do(files: list[tuple[int, int]]) -> None:
    with pytest.raises(SystemExit, match="ulimit"):
        connections.fit_open_files(745, 50)


def test_errors_are_those_of_calls_and_of_connections(capsys: pytest.CaptureFixture[str]) -> None:
    busy = Busy(4, 10, {"1": 2, "broken": 1}, 5.0, 1.0, 1.0, 2.0, 2.0)
    churn = Churn(10, 4, 1_000_000, 2_000_000, 100.0, 7, 7)
    figures = Figures(Idle(1, 2048.0), churn, busy)
    assert figures.errors == 7
    connections.show({"wire": figures})
    lines = {line[:42].strip(): line[42:].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["1 idle: RSS a connection, KB"] == "2.0"
    assert (lines["errors"], lines["10 opened and dropped: errors"]) == ("3", "4")
