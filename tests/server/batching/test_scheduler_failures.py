"""What becomes of a run that fails, and of whoever shared it."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flyweight.server.errors import (
    InvalidRequest,
    NotReady,
    RunFailed,
    WorkerDied,
)

MakeTrial = Callable[..., Any]


# --- failures ---


def refuse_nines(inputs: Mapping[str, Any]) -> None:
    if (inputs["x"] == 9).any():
        raise InvalidRequest("A nine.")


def test_one_bad_request_fails_alone(floor: Any, trial: MakeTrial) -> None:
    runtime = trial(fails=refuse_nines)
    lane = floor.lane(runtime)
    tickets = [floor.submit(lane, value=value) for value in (1.0, 9.0, 2.0)]
    floor.scheduler.advance()
    assert tickets[0].answer() == [2]
    assert tickets[2].answer() == [4]
    assert isinstance(tickets[1].outcome(), InvalidRequest)
    assert runtime.log == [[1, 9, 2], [1], [9], [2]]


def test_repeated_runs_are_counted_for_each(floor: Any, trial: MakeTrial) -> None:
    runtime = trial(fails=refuse_nines)
    lane = floor.lane(runtime)
    tickets = [floor.submit(lane, value=value) for value in (1.0, 9.0, 2.0)]
    floor.scheduler.advance()
    dones = [ticket.outcome() for ticket in tickets]
    assert [(done.batch_requests, done.leads_run) for done in (dones[0], dones[2])] == [(1, True), (1, True)]


def test_a_bug_in_a_runtime_fails_one_request_and_says_where_to_look(
    floor: Any, trial: MakeTrial, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(inputs: Mapping[str, Any]) -> None:
        if (inputs["x"] == 9).any():
            raise ZeroDivisionError("an inside of ours")

    lane = floor.lane(trial(fails=fail))
    good, bad = floor.submit(lane), floor.submit(lane, value=9.0)
    floor.scheduler.advance()
    assert good.answer() == [2]
    outcome = bad.outcome()
    assert isinstance(outcome, RunFailed)
    assert "an inside of ours" not in str(outcome)
    identity = str(outcome).split("id ")[1].rstrip(")")
    assert any(identity in record.getMessage() for record in caplog.records)
    assert any(record.exc_info and "inside" in str(record.exc_info[1]) for record in caplog.records)
    assert floor.run(lane).answer() == [2]


@pytest.mark.parametrize("error", [NotReady("It is being started again."), WorkerDied("It died.")])
def test_a_run_whose_process_died_is_not_repeated(floor: Any, trial: MakeTrial, error: NotReady) -> None:
    """Nobody knows which of them killed it; a repeat would kill the next one too."""

    def die(_: Mapping[str, Any]) -> None:
        raise error

    runtime = trial(fails=die)
    lane = floor.lane(runtime)
    tickets = [floor.submit(lane) for _ in range(3)]
    floor.scheduler.advance()
    assert [ticket.outcome() for ticket in tickets] == [error] * 3
    assert runtime.log == [[1, 1, 1]]


def test_a_caller_whose_answer_fails_harms_no_batch_mate(floor: Any, trial: MakeTrial) -> None:
    lane = floor.lane(trial())
    broken, good = floor.submit(lane), floor.submit(lane)

    def fail() -> None:
        raise ZeroDivisionError

    broken.on_settle = fail
    floor.scheduler.advance()
    assert good.answer() == [2]
    assert floor.run(lane).answer() == [2]


def test_slots_come_back_whatever_happens(floor: Any, trial: MakeTrial) -> None:
    errors = iter([RunFailed("a"), WorkerDied("b"), InvalidRequest("c"), KeyError("d")] * 3)

    def fail(_: Mapping[str, Any]) -> None:
        raise next(errors)

    runtime = trial(fails=fail)
    lane = floor.lane(runtime, instances=1)
    for _ in range(12):
        floor.run(lane).outcome()
    runtime.fails = lambda _: None
    assert floor.run(lane).answer() == [2]


def test_a_run_for_which_no_thread_can_be_had_is_done_on_the_one_that_brings_requests(
    floor: Any, trial: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    runtime = trial()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        ticket = floor.run(floor.lane(runtime))
        assert ticket.answer() == [2]
    assert runtime.threads == [threading.current_thread().name]
    assert "limit on processes" in caplog.text
    # The next one gets its thread.
    assert floor.run(floor.lane(trial())).answer() == [2]
