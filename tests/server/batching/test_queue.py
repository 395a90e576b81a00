"""The queue in front of one variant, without threads: who is next, with whom, and who waited too long."""

from collections.abc import Callable
from typing import Any

import pytest

from flyweight.server.batching.job import Job
from flyweight.server.batching.queue import BatchQueue
from flyweight.server.errors import QueueFull
from flyweight.server.repository.serving import QueuePolicy, ServingPolicy, TimeoutAction

MakeTicket = Callable[..., Any]
DELAY = TimeoutAction.DELAY


def queue_of(**policy: Any) -> BatchQueue:
    return BatchQueue("tiny/baseline", ServingPolicy(**{"max_rows": 8, **policy}))


def filled(queue: BatchQueue, *jobs: Job) -> BatchQueue:
    for job in jobs:
        queue.add(job)
    return queue


def jobs_of(ticket: MakeTicket, *rows: int, **more: Any) -> list[Job]:
    return [ticket(each, **more).job for each in rows]


def everyone(queue: BatchQueue, limit: int = 1) -> list[Job]:
    return [job for _ in range(len(queue)) for job in queue.take(limit)]


def test_an_empty_queue_has_nothing_to_take_or_to_wait_for() -> None:
    queue = queue_of()
    assert queue.take(8) == []
    assert queue.take_all() == []
    assert queue.expire(1e9) == []
    assert queue.next_expiry() is None
    assert queue.ready_at(0.0, 8) is None
    assert queue.first_arrival() is None
    assert len(queue) == 0


def test_a_run_has_those_who_came_first_up_to_its_limit(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, 3, 2, 3, 1)
    queue = filled(queue_of(), *jobs)
    assert queue.take(8) == jobs[:3]
    assert queue.take(8) == jobs[3:]
    assert len(queue) == 0


def test_nobody_overtakes_one_who_no_longer_fits(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, 3, 6, 1)
    queue = filled(queue_of(), *jobs)
    assert queue.take(8) == jobs[:1]
    assert queue.take(8) == jobs[1:]


def test_a_request_of_more_rows_than_the_limit_runs_alone(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, 20, 1, 1)
    queue = filled(queue_of(), *jobs)
    assert queue.take(8) == jobs[:1]
    assert queue.take(8) == jobs[1:]


def test_a_limit_of_one_row_shares_no_run(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, 1, 1)
    queue = filled(queue_of(), *jobs)
    assert [queue.take(1), queue.take(1)] == [jobs[:1], jobs[1:]]


def test_requests_of_different_shapes_never_share_a_run(ticket: MakeTicket) -> None:
    narrow, wide = jobs_of(ticket, 1, 1, width=4), jobs_of(ticket, 1, 1, width=5)
    queue = filled(queue_of(), narrow[0], wide[0], narrow[1], wide[1])
    assert queue.take(8) == narrow
    assert queue.take(8) == wide


def test_requests_for_different_outputs_never_share_a_run(ticket: MakeTicket) -> None:
    some, other = jobs_of(ticket, 1, 1)
    other.outputs = ("z",)
    queue = filled(queue_of(), some, other)
    assert [queue.take(8), queue.take(8)] == [[some], [other]]


def test_requests_of_different_datatypes_never_share_a_run(ticket: MakeTicket) -> None:
    some, other = jobs_of(ticket, 1, 1)
    other.inputs = {"x": other.inputs["x"].astype("float64")}
    queue = filled(queue_of(), some, other)
    assert [queue.take(8), queue.take(8)] == [[some], [other]]


def test_the_order_of_the_inputs_names_does_not_matter(ticket: MakeTicket) -> None:
    some, other = jobs_of(ticket, 1, 1)
    x = some.inputs["x"]
    some.inputs, other.inputs = {"a": x, "b": x}, {"b": x, "a": x}
    assert filled(queue_of(), some, other).take(8) == [some, other]


# --- levels ---


def test_a_higher_level_is_served_first_whenever_it_came(ticket: MakeTicket) -> None:
    low, high = ticket(priority=2).job, ticket(priority=1).job
    queue = filled(queue_of(priority_levels=2, default_priority=2), low, high)
    assert everyone(queue) == [high, low]


def test_a_higher_level_takes_lower_ones_along(ticket: MakeTicket) -> None:
    low, high = ticket(priority=2).job, ticket(priority=1).job
    queue = filled(queue_of(priority_levels=2, default_priority=2), low, high)
    assert queue.take(8) == [high, low]


@pytest.mark.parametrize("priority", [0, 7])
def test_who_names_no_level_that_there_is_has_the_default_one(ticket: MakeTicket, priority: int) -> None:
    first, nobody, last = ticket(priority=1).job, ticket(priority=priority).job, ticket(priority=3).job
    queue = filled(queue_of(priority_levels=3, default_priority=2), last, nobody, first)
    assert everyone(queue) == [first, nobody, last]


def test_without_levels_a_priority_changes_nothing(ticket: MakeTicket) -> None:
    jobs = [ticket(priority=priority).job for priority in (5, 0, 1)]
    assert everyone(filled(queue_of(), *jobs)) == jobs


# --- bounds ---


def test_a_full_queue_refuses_and_takes_again_when_one_left(ticket: MakeTicket) -> None:
    queue = queue_of(queue=QueuePolicy(max_waiting=2))
    first, second, third = jobs_of(ticket, 1, 1, 1)
    filled(queue, first, second)
    with pytest.raises(QueueFull, match=r"tiny/baseline has 2 requests waiting.*max_queue_size") as caught:
        queue.add(third)
    assert caught.value.retry_after_seconds > 0
    assert len(queue) == 2
    queue.take(1)
    queue.add(third)
    assert everyone(queue) == [second, third]


def test_each_level_has_its_own_bound(ticket: MakeTicket) -> None:
    queue = queue_of(priority_levels=2, default_priority=2, queues={1: QueuePolicy(max_waiting=1)})
    filled(queue, ticket(priority=1).job, *jobs_of(ticket, 1, 1, 1, priority=2))
    with pytest.raises(QueueFull):
        queue.add(ticket(priority=1).job)


def test_those_who_are_late_still_fill_their_queue(ticket: MakeTicket) -> None:
    policy = QueuePolicy(DELAY, default_timeout_seconds=1.0, max_waiting=1)
    queue = filled(queue_of(queue=policy), ticket().job)
    assert queue.expire(1002.0) == []
    with pytest.raises(QueueFull):
        queue.add(ticket(arrived=1002.0).job)


# --- time-outs ---


def test_a_callers_deadline_ends_its_wait(ticket: MakeTicket) -> None:
    patient, hasty = ticket().job, ticket(deadline_seconds=1001.0).job
    queue = filled(queue_of(), patient, hasty)
    assert queue.next_expiry() == 1001.0
    assert queue.expire(1000.9) == []
    assert queue.expire(1001.0) == [hasty]
    assert everyone(queue) == [patient]
    assert queue.next_expiry() is None


def test_nobody_is_looked_at_before_somebody_may_be_due(
    ticket: MakeTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = filled(queue_of(), *(ticket(deadline_seconds=1001.0 + number).job for number in range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(BatchQueue, "_is_due", None)
        assert queue.expire(1000.9) == []
    assert len(queue.expire(1002.0)) == 2


def test_a_queues_timeout_ends_the_wait_of_all(ticket: MakeTicket) -> None:
    early, late = ticket(arrived=1000.0).job, ticket(arrived=1001.0).job
    queue = filled(queue_of(queue=QueuePolicy(default_timeout_seconds=2.0)), early, late)
    assert queue.next_expiry() == 1002.0
    assert queue.expire(1002.0) == [early]
    assert queue.expire(1003.0) == [late]


@pytest.mark.parametrize(
    ("default", "own", "allowed", "expiry"),
    [
        (None, 1.0, True, 1001.0),
        (None, 1.0, False, None),
        (2.0, 1.0, True, 1001.0),
        (2.0, 1.0, False, 1002.0),
        (2.0, 5.0, True, 1002.0),
        (None, None, True, None),
    ],
)
def test_a_request_may_shorten_its_wait_where_that_is_allowed(
    ticket: MakeTicket, default: float | None, own: float | None, allowed: bool, expiry: float | None
) -> None:
    policy = QueuePolicy(default_timeout_seconds=default, allow_timeout_override=allowed)
    queue = filled(queue_of(queue=policy), ticket(timeout_seconds=own).job)
    assert queue.next_expiry() == expiry


def test_who_is_delayed_waits_for_those_in_time(ticket: MakeTicket) -> None:
    queue = queue_of(queue=QueuePolicy(DELAY, default_timeout_seconds=1.0))
    late, in_time = ticket(arrived=1000.0).job, ticket(arrived=1001.5).job
    filled(queue, late, in_time)
    assert queue.expire(1001.5) == []
    assert len(queue) == 2
    assert everyone(queue) == [in_time, late]


def test_who_is_delayed_still_goes_before_a_lower_level(ticket: MakeTicket) -> None:
    """Triton's DELAY: after the requests of the same or a higher level, not after those of a lower one."""
    policies = {1: QueuePolicy(DELAY, default_timeout_seconds=1.0)}
    queue = queue_of(priority_levels=2, default_priority=2, queues=policies)
    late, lower = ticket(priority=1).job, ticket(priority=2).job
    filled(queue, lower, late)
    assert queue.expire(1002.0) == []
    assert everyone(queue) == [late, lower]


def test_who_is_delayed_is_done_for_at_the_callers_deadline(ticket: MakeTicket) -> None:
    queue = queue_of(queue=QueuePolicy(DELAY, default_timeout_seconds=1.0))
    job = ticket(deadline_seconds=1005.0).job
    filled(queue, job)
    assert queue.expire(1002.0) == []
    assert queue.next_expiry() == 1005.0
    assert queue.expire(1005.0) == [job]
    assert len(queue) == 0


def test_a_deadline_that_comes_with_the_timeout_delays_nobody(ticket: MakeTicket) -> None:
    queue = queue_of(queue=QueuePolicy(DELAY, default_timeout_seconds=1.0))
    job = ticket(deadline_seconds=1000.5).job
    filled(queue, job)
    assert queue.expire(1003.0) == [job]


# --- leaving ---


def test_who_goes_away_is_out_at_once_and_once(ticket: MakeTicket) -> None:
    stays, gone = jobs_of(ticket, 1, 1)
    queue = filled(queue_of(), gone, stays)
    assert queue.discard(gone)
    assert not queue.discard(gone)
    assert everyone(queue) == [stays]


def test_who_is_late_can_go_away_too(ticket: MakeTicket) -> None:
    queue = filled(queue_of(queue=QueuePolicy(DELAY, default_timeout_seconds=1.0)), job := ticket().job)
    queue.expire(1002.0)
    assert queue.discard(job)
    assert len(queue) == 0


def test_everybody_can_be_sent_home(ticket: MakeTicket) -> None:
    policies = {2: QueuePolicy(DELAY, default_timeout_seconds=1.0)}
    queue = queue_of(priority_levels=2, default_priority=2, queues=policies)
    jobs = [ticket(priority=priority).job for priority in (2, 1)]
    filled(queue, *jobs)
    queue.expire(1002.0)
    assert set(map(id, queue.take_all())) == set(map(id, jobs))
    assert len(queue) == 0
    assert queue.take(8) == []


# --- delay and preferred sizes ---


def test_without_a_delay_a_run_may_begin_at_once(ticket: MakeTicket) -> None:
    assert filled(queue_of(), ticket().job).ready_at(1000.0, 8) == 1000.0


def test_a_delayed_run_waits_for_more_until_its_first_waited_long_enough(ticket: MakeTicket) -> None:
    queue = filled(queue_of(max_delay_seconds=0.5), ticket(arrived=1000.0).job, ticket(arrived=1000.2).job)
    assert queue.ready_at(1000.3, 8) == 1000.5
    assert queue.ready_at(1000.5, 8) == 1000.5
    assert queue.ready_at(1000.7, 8) == 1000.7


def test_a_full_run_is_not_delayed(ticket: MakeTicket) -> None:
    queue = filled(queue_of(max_delay_seconds=0.5), *jobs_of(ticket, 4, 4))
    assert queue.ready_at(1000.0, 8) == 1000.0


def test_what_cannot_be_shared_is_not_delayed(ticket: MakeTicket) -> None:
    assert filled(queue_of(max_delay_seconds=0.5), ticket().job).ready_at(1000.0, 1) == 1000.0


def test_rows_of_another_kind_fill_no_run(ticket: MakeTicket) -> None:
    queue = filled(queue_of(max_delay_seconds=0.5), *jobs_of(ticket, 1), *jobs_of(ticket, 7, width=5))
    assert queue.ready_at(1000.0, 8) == 1000.5


def test_a_preferred_number_of_rows_is_not_delayed(ticket: MakeTicket) -> None:
    queue = queue_of(max_delay_seconds=0.5, preferred_rows=(4,))
    filled(queue, *jobs_of(ticket, 1, 1, 1))
    assert queue.ready_at(1000.0, 8) == 1000.5
    queue.add(ticket().job)
    assert queue.ready_at(1000.0, 8) == 1000.0


def test_a_run_is_cut_back_to_the_largest_preferred_number_of_rows(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, *[1] * 7)
    queue = filled(queue_of(preferred_rows=(2, 4)), *jobs)
    assert queue.take(8) == jobs[:4]
    assert queue.take(8) == jobs[4:6]
    assert queue.take(8) == jobs[6:]


def test_a_run_that_reaches_no_preferred_number_of_rows_is_whole(ticket: MakeTicket) -> None:
    jobs = jobs_of(ticket, 1, 2)
    assert filled(queue_of(preferred_rows=(4,)), *jobs).take(8) == jobs
