"""Which requests run next, together, and on which thread; the tests hold the clock and the runtimes."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flyweight.server.batching.lane import Lane
from flyweight.server.repository.serving import Merging

PATIENCE_SECONDS = 30
FloorOf = Callable[[int], Any]
MakeTrial = Callable[..., Any]


# --- what shares a run ---


def test_one_request_runs_at_once_and_gets_its_rows(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    ticket = floor.submit(floor.lane(runtime), rows=2, value=3.0)
    assert floor.scheduler.advance() is None
    assert ticket.answer() == [6, 6]
    assert runtime.log == [[3, 3]]


def test_what_has_arrived_when_a_run_may_begin_shares_it(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    first = floor.hold_up(lane, runtime)
    others = [floor.submit(lane, rows=rows, value=float(rows)) for rows in (1, 2, 3)]
    assert floor.scheduler.advance() is None
    assert floor.scheduler.waiting_count == 3
    runtime.go_on.release()
    assert [other.answer() for other in others] == [[2], [4, 4], [6, 6, 6]]
    assert first.answer() == [-2]
    assert runtime.log == [[-1], [1, 2, 2, 3, 3, 3]]


@pytest.mark.parametrize(("slots", "runs"), [(1, [[1, 2]]), (2, [[1], [2]])])
def test_a_free_slot_gets_its_share_of_those_who_wait(
    floor_of: FloorOf, trial: MakeTrial, slots: int, runs: list[list[float]]
) -> None:
    floor, runtime = floor_of(slots), trial()
    lane = floor.lane(runtime, merging=Merging.MEASURED)
    tickets = [floor.submit(lane, value=float(value)) for value in (1, 2)]
    floor.scheduler.advance()
    floor.rest(*tickets)
    assert sorted(runtime.log) == runs


def test_those_who_share_a_run_are_told_so_and_it_is_counted_once(floor: Any, trial: MakeTrial) -> None:
    runtime = trial(seconds=0.25)
    lane = floor.lane(runtime)
    tickets = [floor.submit(lane, rows=rows) for rows in (1, 3)]
    floor.scheduler.advance()
    first, second = (ticket.outcome() for ticket in tickets)
    for done in (first, second):
        assert (done.batch_rows, done.batch_requests, done.run_seconds) == (4, 2, 0.25)
    assert [first.leads_run, second.leads_run] == [True, False]


def test_nothing_is_merged_where_that_was_ruled_out(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, merging=Merging.NEVER)
    tickets = [floor.submit(lane) for _ in range(3)]
    floor.scheduler.advance()
    floor.rest(*tickets)
    assert [len(rows) for rows in runtime.log] == [1, 1, 1]


def test_nothing_is_merged_for_a_model_without_a_batch_axis(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, max_rows=0)
    tickets = [floor.submit(lane) for _ in range(3)]
    floor.scheduler.advance()
    floor.rest(*tickets)
    assert [len(rows) for rows in runtime.log] == [1, 1, 1]


def test_outputs_without_a_row_per_row_are_nobodys_and_end_the_merging(
    floor: Any, trial: MakeTrial, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = trial(rows_of=lambda rows: 1)
    lane = floor.lane(runtime)
    for _ in range(2):
        tickets = [floor.submit(lane, value=float(value)) for value in (1, 2)]
        floor.scheduler.advance()
        assert [ticket.answer() for ticket in tickets] == [[2], [4]]
    assert runtime.log == [[1, 2], [1], [2], [1], [2]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


# --- slots and threads ---


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_more_run_at_once_than_there_are_slots(floor_of: FloorOf, trial: MakeTrial, slots: int) -> None:
    floor, runtime = floor_of(slots), trial(held=1.0)
    lane = floor.lane(runtime, merging=Merging.NEVER)
    tickets = [floor.submit(lane) for _ in range(8)]
    floor.scheduler.advance()
    for _ in range(slots):
        assert runtime.entered.acquire(timeout=PATIENCE_SECONDS)
    assert floor.scheduler.waiting_count == 8 - slots
    for _ in tickets:
        runtime.go_on.release()
    floor.rest(*tickets)
    assert runtime.most_inside == slots


def test_a_run_of_unknown_length_is_not_done_by_who_brings_requests(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    floor.rest(floor.run(floor.lane(runtime)))
    assert runtime.threads == ["run-0"]


def test_a_short_run_is_done_by_who_brings_requests(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    for _ in range(3):
        floor.rest(floor.run(lane))
    assert runtime.threads == ["run-0", threading.current_thread().name, threading.current_thread().name]


@pytest.mark.parametrize(
    ("slots", "seconds", "inline"), [(1, 0.009, True), (1, 0.011, False), (2, 0.009, False)]
)
def test_what_is_short_depends_on_how_many_can_run_at_once(
    floor_of: FloorOf, trial: MakeTrial, slots: int, seconds: float, inline: bool
) -> None:
    floor = floor_of(slots)
    runtime = trial(fails=lambda _: floor.clock.__setattr__("seconds", floor.clock.seconds + seconds))
    lane = floor.lane(runtime)
    for _ in range(3):
        floor.rest(floor.run(lane))
    assert (threading.current_thread().name in runtime.threads) is inline


def test_a_run_in_another_process_is_never_done_by_who_brings_requests(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = Lane("tiny/baseline", runtime, floor.lane(runtime).queue._policy, runs_elsewhere=True)
    for _ in range(3):
        floor.rest(floor.run(lane))
    assert all(name.startswith("run-") for name in runtime.threads)


def test_who_brings_requests_is_not_kept_by_runs_for_long(floor: Any, trial: MakeTrial) -> None:
    """Each run takes 4 ms by the clock: after the third, it looks for new requests, and says to come back."""

    def take_time(_: Mapping[str, Any]) -> None:
        floor.clock.seconds += 0.004

    runtime = trial(fails=take_time)
    lane = floor.lane(runtime, merging=Merging.NEVER)
    floor.rest(floor.run(lane))
    tickets = [floor.submit(lane) for _ in range(5)]
    assert floor.scheduler.advance() == floor.clock.seconds
    assert [ticket.settled.is_set() for ticket in tickets] == [True, True, True, False, False]
    assert floor.scheduler.advance() is None
    floor.rest(*tickets)


def test_runs_in_the_crew_go_on_without_anybody_calling(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, merging=Merging.NEVER)
    first = floor.hold_up(lane, runtime)
    tickets = [floor.submit(lane, value=float(value)) for value in range(5)]
    runtime.go_on.release()
    floor.rest(first, *tickets)
    assert runtime.log == [[-1], [0], [1], [2], [3], [4]]
    assert set(runtime.threads) == {"run-0"}


def test_instances_bound_the_runs_of_one_variant_and_not_of_others(
    floor_of: FloorOf, trial: MakeTrial
) -> None:
    floor, one, other = floor_of(3), trial(held=1.0), trial()
    lane = floor.lane(one, instances=2, merging=Merging.NEVER)
    tickets = [floor.submit(lane) for _ in range(6)]
    floor.scheduler.advance()
    for _ in range(2):
        assert one.entered.acquire(timeout=PATIENCE_SECONDS)
    assert floor.run(floor.lane(other)).answer() == [2]
    for _ in tickets:
        one.go_on.release()
    floor.rest(*tickets)
    assert one.most_inside == 2


def test_answers_leave_in_order_where_that_was_asked_for(floor_of: FloorOf, trial: MakeTrial) -> None:
    """The second answer has every chance to overtake the first, which takes its time to leave."""
    floor, runtime, left = floor_of(2), trial(), list[float]()
    lane = floor.lane(runtime, preserve_ordering=True, merging=Merging.NEVER)
    leaving, go_on = threading.Event(), threading.Event()
    first, second = (floor.submit(lane, value=value) for value in (1.0, 2.0))

    def leave_slowly() -> None:
        leaving.set()
        assert go_on.wait(PATIENCE_SECONDS)
        left.append(1)

    first.on_settle = leave_slowly
    second.on_settle = lambda: left.append(2)
    floor.scheduler.advance()
    assert leaving.wait(PATIENCE_SECONDS)
    floor.scheduler.advance()
    bystander = floor.run(floor.lane(trial()))
    assert bystander.answer() == [2]
    assert not second.settled.is_set()
    go_on.set()
    floor.rest(first, second)
    assert left == [1, 2]


def test_the_variant_whose_first_request_came_first_is_next(floor: Any, trial: MakeTrial) -> None:
    order: list[str] = []
    runtimes = {name: trial(fails=lambda _, name=name: order.append(name)) for name in "abc"}
    lanes = {name: floor.lane(runtime, name, merging=Merging.NEVER) for name, runtime in runtimes.items()}
    blocker = trial()
    first = floor.hold_up(floor.lane(blocker), blocker)
    tickets = []
    for name in "cabca":
        floor.clock.seconds += 1
        tickets.append(floor.submit(lanes[name]))
    floor.scheduler.advance()
    blocker.go_on.release()
    floor.rest(first, *tickets)
    assert "".join(order) == "cabca"


def test_a_busy_variant_starves_no_other(floor: Any, trial: MakeTrial) -> None:
    order: list[str] = []
    busy, quiet = (trial(fails=lambda _, name=name: order.append(name)) for name in ("busy", "quiet"))
    busy_lane, quiet_lane = floor.lane(busy, merging=Merging.NEVER), floor.lane(quiet)
    first = floor.hold_up(busy_lane, busy)
    tickets = [floor.submit(busy_lane) for _ in range(5)]
    floor.clock.seconds += 1
    tickets.append(floor.submit(quiet_lane))
    floor.clock.seconds += 1
    tickets += [floor.submit(busy_lane) for _ in range(5)]
    busy.go_on.release()
    floor.rest(first, *tickets)
    assert order.index("quiet") == 6


# --- when to call again ---


def test_an_idle_scheduler_waits_for_nothing(floor: Any) -> None:
    assert floor.scheduler.advance() is None
    assert floor.scheduler.waiting_count == 0


def test_a_delay_is_waited_for_and_then_run(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, max_delay_seconds=0.5)
    first = floor.submit(lane, value=1.0)
    assert floor.scheduler.advance() == floor.clock() + 0.5
    floor.clock.seconds += 0.3
    second = floor.submit(lane, value=2.0)
    assert floor.scheduler.advance() == pytest.approx(floor.clock() + 0.2)
    floor.clock.seconds += 0.25
    floor.scheduler.advance()
    floor.rest(first, second)
    assert runtime.log == [[1, 2]]


def test_a_delay_that_ends_between_two_looks_at_the_clock_is_not_missed(
    floor: Any, trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = trial()
    ticket = floor.submit(floor.lane(runtime, max_delay_seconds=0.5))

    def tick() -> float:
        floor.clock.seconds += 0.3
        return floor.clock.seconds

    monkeypatch.setattr(floor.scheduler, "_clock", tick)
    assert floor.scheduler.advance() == pytest.approx(1000.5)
    floor.scheduler.advance()
    floor.rest(ticket)


def test_what_a_run_leaves_behind_is_looked_at_again_though_nobody_else_comes(
    floor: Any, trial: MakeTrial, poll: Callable[[Callable[[], bool]], None]
) -> None:
    runtime = trial()
    lane = floor.lane(runtime, max_delay_seconds=0.5)
    floor.hold_up(floor.lane(runtime), runtime)
    early = floor.submit(lane, rows=8)
    floor.clock.seconds += 0.6
    late = floor.submit(lane)
    assert floor.scheduler.advance() == floor.clock() + 0.5
    runtime.go_on.release()
    early.outcome()
    poll(lambda: not floor.scheduler._running)
    assert not late.settled.is_set()
    floor.clock.seconds += 0.5
    floor.scheduler.advance()
    floor.rest(late)


def test_a_full_run_waits_for_no_delay(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, max_delay_seconds=0.5)
    tickets = [floor.submit(lane, rows=4) for _ in range(2)]
    floor.scheduler.advance()
    floor.rest(*tickets)
    assert [len(rows) for rows in runtime.log] == [8]


def test_one_who_waits_for_more_keeps_nobody_else_waiting(floor: Any, trial: MakeTrial) -> None:
    runtime, other = trial(), trial()
    slow = floor.submit(floor.lane(runtime, max_delay_seconds=0.5))
    quick = floor.run(floor.lane(other))
    assert quick.answer() == [2]
    assert not slow.settled.is_set()
    floor.clock.seconds += 0.5
    floor.scheduler.advance()
    floor.rest(slow)
