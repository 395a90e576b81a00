"""What holds of every queue, whatever is done to it."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.server.batching.job import Job
from flyweight.server.batching.queue import BatchQueue
from flyweight.server.errors import QueueFull
from flyweight.server.repository.serving import QueuePolicy, ServingPolicy, TimeoutAction

DELAY = TimeoutAction.DELAY


def queue_of(**policy: Any) -> BatchQueue:
    return BatchQueue("tiny/baseline", ServingPolicy(**{"max_rows": 8, **policy}))


rows_of = st.integers(1, 12)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            rows_of,
            st.integers(0, 4),
            st.sampled_from([4, 5]),
            st.sampled_from([None, 1.0, 4.0]),
        ),
        st.tuples(st.just("take"), st.integers(1, 8)),
        st.tuples(st.just("wait"), st.floats(0.1, 2.0)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
    ),
    max_size=40,
)
policies = st.builds(
    ServingPolicy,
    max_rows=st.just(8),
    preferred_rows=st.sampled_from([(), (2,), (4, 8)]),
    max_delay_seconds=st.sampled_from([0.0, 0.5]),
    priority_levels=st.just(3),
    default_priority=st.integers(1, 3),
    queue=st.builds(
        QueuePolicy,
        st.sampled_from(TimeoutAction),
        st.sampled_from([None, 0.5, 3.0]),
        st.booleans(),
        st.sampled_from([0, 3]),
    ),
)


@settings(max_examples=200)
@given(steps=steps, policy=policies)
def test_every_job_leaves_once_and_no_run_is_larger_than_it_may_be(
    steps: list[tuple[Any, ...]], policy: ServingPolicy
) -> None:
    queue, now = BatchQueue("tiny/baseline", policy), 1000.0
    inside: list[Job] = []
    for step in steps:
        if step[0] == "add":
            job = _job(now, *step[1:])
            try:
                queue.add(job)
            except QueueFull:
                continue
            inside.append(job)
            continue
        if step[0] == "wait":
            now += step[1]
            expiry = queue.next_expiry()
            out = queue.expire(now)
            assert not out or (expiry is not None and expiry <= now)
            next_expiry = queue.next_expiry()
            assert next_expiry is None or next_expiry > now
        elif step[0] == "take":
            out = queue.take(step[1])
            assert bool(out) == bool(inside)
            assert len(out) == 1 or sum(job.rows for job in out) <= step[1]
            assert len({job.kind for job in out}) <= 1
            for level in {job.priority for job in out}:
                arrivals = [job.arrived_seconds for job in out if job.priority == level]
                assert arrivals == sorted(arrivals) or policy.queue.action is DELAY
        else:
            out = [job for job in inside[step[1] : step[1] + 1] if queue.discard(job)]
            assert len(out) == len(inside[step[1] : step[1] + 1])
        for job in out:
            inside.remove(job)
        assert len(queue) == len(inside)
    assert {id(job) for job in queue.take_all()} == {id(job) for job in inside}


def _job(now: float, rows: int, priority: int, width: int, patience: float | None) -> Job:
    inputs = {"x": np.zeros((rows, width), np.float32)}
    deadline = None if patience is None else now + patience
    return Job(inputs, rows, ("y",), now, lambda _: None, deadline_seconds=deadline, priority=priority)


@settings(max_examples=100)
@given(
    jobs=st.lists(st.tuples(rows_of, st.integers(1, 3), st.sampled_from([4, 5])), max_size=20),
    limit=st.integers(1, 8),
)
def test_within_a_level_and_a_kind_nobody_is_overtaken(jobs: list[tuple[int, int, int]], limit: int) -> None:
    queue = queue_of(priority_levels=3, default_priority=2)
    made = [_job(1000.0 + place, rows, level, width, None) for place, (rows, level, width) in enumerate(jobs)]
    taken: list[Job] = []
    for job in made:
        queue.add(job)
    while run := queue.take(limit):
        taken += run
    assert len(taken) == len(made)
    for group in {(job.priority, job.kind) for job in made}:
        arrivals = [job.arrived_seconds for job in taken if (job.priority, job.kind) == group]
        assert arrivals == sorted(arrivals)
