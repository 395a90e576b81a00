"""Who leaves before the run: by a deadline, a time-out, a cancellation, or at the end of it all."""

import gc
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from flyweight.server.batching.job import Done
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    QueueFull,
    TimedOut,
)
from flyweight.server.repository.serving import QueuePolicy, TimeoutAction

PATIENCE_SECONDS = 30
FloorOf = Callable[[int], Any]
MakeTrial = Callable[..., Any]
Poll = Callable[[Callable[[], bool]], None]


# --- who leaves before the run ---


def test_a_deadline_ends_the_wait_without_running(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    first = floor.hold_up(lane, runtime)
    hasty = floor.submit(lane, value=5.0, deadline_seconds=floor.clock() + 2)
    patient = floor.submit(lane, value=6.0)
    assert floor.scheduler.advance() == floor.clock() + 2
    floor.clock.seconds += 2
    assert floor.scheduler.advance() is None
    assert type(hasty.outcome()) is DeadlineExceeded
    assert not patient.settled.is_set()
    runtime.go_on.release()
    floor.rest(first, patient)
    assert runtime.log == [[-1], [6]]


def test_a_deadline_in_the_past_is_not_run_though_there_is_room(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    ticket = floor.submit(floor.lane(runtime), deadline_seconds=floor.clock() - 1)
    floor.scheduler.advance()
    assert isinstance(ticket.outcome(), DeadlineExceeded)
    assert runtime.log == []


def test_a_queues_timeout_says_so(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, queue=QueuePolicy(default_timeout_seconds=1.0))
    first = floor.hold_up(lane, runtime)
    late = floor.submit(lane)
    assert floor.scheduler.advance() == floor.clock() + 1
    floor.clock.seconds += 1
    floor.scheduler.advance()
    outcome = late.outcome()
    assert isinstance(outcome, TimedOut)
    assert "timeout" in str(outcome)
    runtime.go_on.release()
    floor.rest(first)


def test_a_delayed_requests_deadline_is_kept_too(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, queue=QueuePolicy(TimeoutAction.DELAY, default_timeout_seconds=1.0))
    first = floor.hold_up(lane, runtime)
    late = floor.submit(lane, deadline_seconds=floor.clock() + 5)
    began = floor.clock()
    floor.clock.seconds += 1
    assert floor.scheduler.advance() == began + 5
    floor.clock.seconds += 4
    floor.scheduler.advance()
    assert isinstance(late.outcome(), DeadlineExceeded)
    runtime.go_on.release()
    floor.rest(first)


def test_a_caller_who_goes_away_leaves_the_queue_at_once_and_is_not_settled(
    floor: Any, trial: MakeTrial
) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    first = floor.hold_up(lane, runtime)
    gone, stays = floor.submit(lane, value=5.0), floor.submit(lane, value=6.0)
    assert floor.scheduler.discard(lane, gone.job)
    assert not floor.scheduler.discard(lane, gone.job)
    assert floor.scheduler.waiting_count == 1
    runtime.go_on.release()
    floor.rest(first, stays)
    assert runtime.log == [[-1], [6]]
    assert gone.outcomes == []


def test_who_is_being_run_can_no_longer_leave(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    ticket = floor.hold_up(lane, runtime)
    assert not floor.scheduler.discard(lane, ticket.job)
    runtime.go_on.release()
    assert ticket.answer() == [-2]


def test_who_went_away_after_being_taken_is_not_run(floor: Any, trial: MakeTrial) -> None:
    """A request whose turn came, but whose caller has gone since: only its batch-mates run."""
    runtime = trial()
    lane = floor.lane(runtime)
    gone, stays = floor.submit(lane, value=5.0, is_active=lambda: False), floor.submit(lane, value=6.0)
    floor.scheduler.advance()
    assert isinstance(gone.outcome(), Cancelled)
    assert stays.answer() == [12]
    assert runtime.log == [[6]]


def test_a_request_that_nobody_waits_for_costs_no_run(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    gone = floor.run(floor.lane(runtime), is_active=lambda: False)
    assert isinstance(gone.outcome(), Cancelled)
    assert runtime.log == []


def test_a_full_queue_refuses_whoever_comes(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime, queue=QueuePolicy(max_waiting=1))
    first = floor.hold_up(lane, runtime)
    waiting = floor.submit(lane)
    with pytest.raises(QueueFull):
        floor.submit(lane)
    runtime.go_on.release()
    floor.rest(first, waiting)


# --- the end ---


def test_who_still_waits_at_the_end_is_sent_elsewhere(floor: Any, trial: MakeTrial) -> None:
    runtime = trial()
    lane = floor.lane(runtime)
    first = floor.hold_up(lane, runtime)
    waiting = floor.submit(lane)
    floor.scheduler.stop()
    assert isinstance(waiting.outcome(), Draining)
    runtime.go_on.release()
    assert first.answer() == [-2]


def test_the_end_may_come_twice_and_before_any_work() -> None:
    scheduler = Scheduler(2)
    scheduler.stop()
    scheduler.stop()


def test_tensors_are_gone_once_they_are_answered(floor: Any, trial: MakeTrial, poll: Poll) -> None:
    """By their reference counts: the collector may not come by for a long time, and tensors are large."""
    runtime = trial()
    lane = floor.lane(runtime)
    kept: list[weakref.ref[Any]] = []
    runtime.fails = lambda inputs: kept.append(weakref.ref(inputs["x"]))
    gc.disable()
    try:
        for _ in range(2):
            ticket = floor.run(lane)
            ticket.outcome()
            # The test's own circle.
            ticket.job = None
        poll(lambda: all(ref() is None for ref in kept))
        assert len(kept) == 2
    finally:
        gc.enable()


def test_every_request_is_settled_once_in_a_storm_of_cancellations(
    floor_of: FloorOf, trial: MakeTrial, poll: Poll
) -> None:
    """Three threads bring requests, two take some back, all advance; some runs fail; deadlines pass."""
    floor = floor_of(3)
    now = floor.clock
    chance = random.Random(7)

    def sometimes(inputs: Mapping[str, Any]) -> None:
        if (inputs["x"] == 9).any():
            raise InvalidRequest("A nine.")

    runtimes = [trial(fails=sometimes), trial(), trial(rows_of=lambda rows: max(1, rows - 1))]
    lanes = [
        floor.lane(runtimes[0]),
        floor.lane(runtimes[1], preserve_ordering=True, max_delay_seconds=0.001),
        floor.lane(runtimes[2], queue=QueuePolicy(TimeoutAction.DELAY, default_timeout_seconds=0.002)),
    ]
    brought: list[tuple[Any, Any]] = []
    discarded: set[int] = set()
    lock, done = threading.Lock(), threading.Event()

    def bring(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(400):
            lane = dice.choice(lanes)
            deadline = now() + dice.choice([0.0005, 1.0]) if dice.random() < 0.3 else None
            ticket = floor.submit(lane, value=float(dice.choice([1, 2, 9])), deadline_seconds=deadline)
            with lock:
                brought.append((lane, ticket))
                now.seconds += 0.0001
            floor.scheduler.advance()

    def take_back(seed: int) -> None:
        dice = random.Random(seed)
        while not done.is_set():
            with lock:
                if not brought:
                    continue
                lane, ticket = dice.choice(brought[-40:])
            if floor.scheduler.discard(lane, ticket.job):
                with lock:
                    discarded.add(id(ticket))

    bringers = [threading.Thread(target=bring, args=(chance.random(),)) for _ in range(3)]
    takers = [threading.Thread(target=take_back, args=(chance.random(),)) for _ in range(2)]
    for thread in (*bringers, *takers):
        thread.start()
    for thread in bringers:
        thread.join(PATIENCE_SECONDS)
    done.set()
    for thread in takers:
        thread.join(PATIENCE_SECONDS)
    now.seconds += 10
    floor.scheduler.advance()
    poll(lambda: all(ticket.outcomes or id(ticket) in discarded for _, ticket in brought))
    assert len(brought) == 1200
    assert floor.scheduler.waiting_count == 0
    for _, ticket in brought:
        assert len(ticket.outcomes) == (id(ticket) not in discarded)
    assert {lane.running for lane in lanes} == {0}
    assert all(runtime.most_inside <= 3 for runtime in runtimes)
    assert runtimes[1].most_inside <= 1


def test_a_clock_and_arrays_are_all_it_needs(floor: Any, trial: MakeTrial) -> None:
    ticket = floor.run(floor.lane(trial()), value=0.5)
    outcome = ticket.outcome()
    assert isinstance(outcome, Done)
    assert outcome.started_seconds == floor.clock()
    np.testing.assert_array_equal(outcome.outputs["y"], np.ones((1, 4), np.float32))
