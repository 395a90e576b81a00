"""The bounded queue in front of one variant: who is next, who shares a run, who waited too long. Pure.

Levels, time-outs and their actions are those of Triton's ModelQueuePolicy and ModelDynamicBatching
(model_config.proto).
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from flyweight.server.batching.job import Job
from flyweight.server.errors import QueueFull
from flyweight.server.repository.serving import QueuePolicy, ServingPolicy, TimeoutAction


@dataclass(slots=True)
class _Level:
    """The jobs of one priority in the order they came; `late` waited too long and may wait on."""

    policy: QueuePolicy
    waiting: deque[Job] = field(default_factory=deque[Job])
    late: deque[Job] = field(default_factory=deque[Job])


class BatchQueue:
    """Jobs that wait for one variant. Not thread-safe: the scheduler's lock guards it."""

    def __init__(self, what: str, policy: ServingPolicy) -> None:
        self._what = what
        self._policy = policy
        priorities = range(1, policy.priority_levels + 1) if policy.priority_levels else range(1)
        self._levels = {priority: _Level(policy.queue_of(priority)) for priority in priorities}
        self._ordered = tuple(self._levels.values())
        self._count = 0
        # No job is due before this: looking at each of a long queue for every run would cost more than the
        # runs. Whoever leaves may leave it too early, which costs one look.
        self._earliest_expiry = math.inf

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return self._count

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            QueueFull: the queue of its level is as long as it may be.
        """
        level = self._level_of(job)
        bound = level.policy.max_waiting
        if bound and len(level.waiting) + len(level.late) >= bound:
            raise QueueFull(
                f"{self._what} has {bound} requests waiting (max_queue_size) already; try again later."
            )
        level.waiting.append(job)
        self._count += 1
        expiry = self._expiry(job, level.policy)
        if expiry is not None and expiry < self._earliest_expiry:
            self._earliest_expiry = expiry

    def discard(self, job: Job) -> bool:
        """Take out a job whose caller went away; tell whether it was still there."""
        level = self._level_of(job)
        for jobs in (level.waiting, level.late):
            if job in jobs:
                jobs.remove(job)
                self._count -= 1
                return True
        return False

    def expire(self, now: float) -> list[Job]:
        """Take out the jobs whose caller's deadline or whose time in the queue is over."""
        expired: list[Job] = []
        if now < self._earliest_expiry:
            return expired
        for level in self._ordered:
            for job in [job for job in level.waiting if self._is_due(job, level.policy, now)]:
                level.waiting.remove(job)
                if level.policy.action is TimeoutAction.DELAY and not job.is_over(now):
                    level.late.append(job)
                else:
                    expired.append(job)
            for job in [job for job in level.late if job.is_over(now)]:
                level.late.remove(job)
                expired.append(job)
        self._count -= len(expired)
        self._earliest_expiry = min(self._expiries(), default=math.inf)
        return expired

    def next_expiry(self) -> float | None:
        """Return the first moment at which `expire` may have something to do; None when there is none.

        Of somebody who left by another way it may be the moment that was his.
        """
        return None if math.isinf(self._earliest_expiry) else self._earliest_expiry

    def _expiries(self) -> Iterator[float]:
        for level in self._ordered:
            yield from (_or_never(self._expiry(job, level.policy)) for job in level.waiting)
            # Those who are late wait for nothing but their callers' deadlines.
            yield from (_or_never(job.deadline_seconds) for job in level.late)

    def ready_at(self, now: float, limit: int) -> float | None:
        """Return the moment from which a run may be taken: `now` if it may be; None when nobody waits.

        Args:
            now: on the scheduler's clock.
            limit: the most rows that are worth a run.
        """
        head = self._head()
        if head is None:
            return None
        delay = self._policy.max_delay_seconds
        if delay <= 0 or limit <= 1:
            return now
        moment = head.arrived_seconds + delay
        if moment <= now:
            return now
        rows = sum(job.rows for job in self._mates(head))
        goal = min((limit, *self._policy.preferred_rows)) if self._policy.preferred_rows else limit
        return now if rows >= goal else moment

    def take(self, limit: int, most_jobs: int | None = None) -> list[Job]:
        """Take out the jobs of the next run: the first in line, and whoever may share its run.

        Args:
            limit: the most rows of a run; a request of more is run alone.
            most_jobs: how many may share it, at least 1; None for as many as fit.
        """
        head = self._head()
        if head is None:
            return []
        jobs, rows = [head], head.rows
        if rows < limit:
            for job in self._mates(head):
                if job is head:
                    continue
                if rows + job.rows > limit or len(jobs) == most_jobs:
                    break
                jobs.append(job)
                rows += job.rows
        jobs = self._preferred(jobs)
        for job in jobs:
            level = self._level_of(job)
            (level.waiting if job in level.waiting else level.late).remove(job)
        self._count -= len(jobs)
        return jobs

    def take_all(self) -> list[Job]:
        """Take out everybody, at the end."""
        jobs = list(self._in_order())
        for level in self._ordered:
            level.waiting.clear()
            level.late.clear()
        self._count = 0
        return jobs

    def first_arrival(self) -> float | None:
        """Return when the first in line came; None when nobody waits."""
        head = self._head()
        return None if head is None else head.arrived_seconds

    def _preferred(self, jobs: list[Job]) -> list[Job]:
        """Cut a run back to the largest preferred number of rows that it reaches, if there is one."""
        if len(jobs) < 2 or not self._policy.preferred_rows:
            return jobs
        total, best = 0, 0
        for count, job in enumerate(jobs, start=1):
            total += job.rows
            if total in self._policy.preferred_rows:
                best = count
        return jobs[:best] if best else jobs

    def _level_of(self, job: Job) -> _Level:
        if len(self._ordered) == 1:
            return self._ordered[0]
        return (
            self._levels.get(job.priority)
            or self._levels.get(self._policy.default_priority)
            or self._ordered[-1]
        )

    def _head(self) -> Job | None:
        return next(self._in_order(), None)

    def _in_order(self) -> Iterator[Job]:
        """Go through the jobs: by level, and in each those in time before those that are late."""
        for level in self._ordered:
            yield from level.waiting
            yield from level.late

    def _mates(self, head: Job) -> Iterator[Job]:
        """Go through the jobs that may share a run with the first in line, itself among them."""
        kind = head.kind if self._count > 1 else None
        return (job for job in self._in_order() if job is head or job.kind == kind)

    def _is_due(self, job: Job, policy: QueuePolicy, now: float) -> bool:
        expiry = self._expiry(job, policy)
        return expiry is not None and expiry <= now

    def _expiry(self, job: Job, policy: QueuePolicy) -> float | None:
        """Return when a job has waited long enough, by its caller's deadline, its own word or the queue's."""
        timeout = policy.default_timeout_seconds
        if timeout is None and job.timeout_seconds is None:
            # As nearly always.
            return job.deadline_seconds
        if policy.allow_timeout_override and job.timeout_seconds is not None:
            timeout = job.timeout_seconds if timeout is None else min(timeout, job.timeout_seconds)
        moments = [job.deadline_seconds, None if timeout is None else job.arrived_seconds + timeout]
        return min((moment for moment in moments if moment is not None), default=None)


def _or_never(moment: float | None) -> float:
    return math.inf if moment is None else moment
