"""The scheduler: decides which requests run next, together, and on which thread.

As many runs go on at once as there are processors for them; what has arrived by the time one may begin shares
it, so an idle server never waits and a busy one merges by itself. Whoever brings requests calls `advance`
when nothing more is at hand: a run that is over in a moment is done there and then, for handing it to
another thread would cost more than the run; a longer one goes to the crew, whose threads then take run after
run as long as there are any.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flyweight.protos.errors import FlyweightError
from flyweight.server.batching.crew import Crew
from flyweight.server.batching.job import GONE, TOO_LATE, Done, Job, Outcome
from flyweight.server.batching.lane import Lane
from flyweight.server.batching.merging import merge, split
from flyweight.server.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    RunFailed,
    TimedOut,
)
from flyweight.server.runtime.seam import Answer
from flyweight.server.survival import survive

_log = logging.getLogger(__name__)

# Runs up to this long are done on the thread that brings requests. With one processor the only cost is that
# health and metadata wait for so long, as they would for the kernel to switch to their thread; with more, the
# others would stand idle meanwhile, so a run must be cheaper than handing it over, which takes two switches.
_SHORT_ALONE_SECONDS: Final = 0.01
_SHORT_SECONDS: Final = 0.000_1
# After so much work of its own the thread that brings requests looks for new ones.
_TURN_SECONDS: Final = 0.01

# What this thread has to be at work of a run's time for that to be what the run costs.
_OURS: Final = 0.5

# How often is looked at requests that wait for both a run and a delay to end.
_LOOK_SECONDS: Final = 0.005

_TIMED_OUT: Final = "The request waited longer than its timeout or its queue's allows; it was not run."
_CLOSING: Final = "The server is shutting down; send the request to another replica."


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs of one run."""

    lane: Lane
    jobs: list[Job]

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return sum(job.rows for job in self.jobs)


class Scheduler:
    """Every method may be called from any thread. Owns the crew's threads, until `stop`.

    Args:
        slots: how many runs go on at once.
        clock: monotonic seconds.
    """

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._clock = clock
        self._short_seconds = _SHORT_ALONE_SECONDS if slots == 1 else _SHORT_SECONDS
        self._lock = threading.Lock()
        self._running = 0
        # The lanes in which somebody waits; a dict for its order.
        self._waiting: dict[Lane, None] = {}
        self._crew = Crew(slots, self._run_and_go_on)

    @property
    def waiting_count(self) -> int:
        """Return how many requests wait for a run."""
        with self._lock:
            return sum(len(lane.queue) for lane in self._waiting)

    def has_work(self) -> bool:
        """Tell whether anybody waits for a run, without a lock: who submits knows better."""
        return bool(self._waiting)

    def is_running(self) -> bool:
        """Tell whether a run goes on, without a lock: it may be over by then."""
        return self._running > 0

    def submit(self, lane: Lane, job: Job) -> None:
        """Let a job wait for its run; `advance` is to be called soon.

        Raises:
            QueueFull: the variant's own queue is full.
        """
        with self._lock:
            lane.queue.add(job)
            self._waiting[lane] = None

    def discard(self, lane: Lane, job: Job) -> bool:
        """Take out a job whose caller went away; tell whether it still waited. It is then not settled."""
        with self._lock:
            was_there = lane.queue.discard(job)
            if not len(lane.queue):
                self._waiting.pop(lane, None)
            return was_there

    def advance(self) -> float | None:
        """Begin whatever may begin; return the moment at which to call again, None when nothing waits for it.

        Runs that are not short go on in other threads, which advance by themselves when they end.
        """
        began = now = self._clock()
        while (batch := self._next_batch(now)) is not None:
            if self._is_short(batch.lane, batch.rows) or not self._crew.hand(batch):
                self._run(batch)
            now = self._clock()
            if now - began > _TURN_SECONDS:
                return now
        with self._lock:
            # Of the moment at which nothing could begin: what has become due since then must not be missed.
            return self._next_moment(now)

    def stop(self) -> None:
        """Refuse whoever waits, and end the threads after their runs; nothing is submitted any more."""
        with self._lock:
            left = [job for lane in self._waiting for job in lane.queue.take_all()]
            self._waiting.clear()
        for job in left:
            _settle(job, Draining(_CLOSING))
        self._crew.stop()

    def _next_batch(self, now: float) -> Batch | None:
        """Take the jobs of the next run, if one may begin, and its slot; settle those that are too late."""
        expired: list[Job] = []
        with self._lock:
            for lane in self._waiting:
                expired += lane.queue.expire(now)
            batch = self._pick(now)
        for job in expired:
            _settle(job, DeadlineExceeded(TOO_LATE) if job.is_over(now) else TimedOut(_TIMED_OUT))
        return batch

    def _pick(self, now: float) -> Batch | None:
        if self._running >= self._slots:
            return None
        best: Lane | None = None
        best_arrival = float("inf")
        for lane in [lane for lane in self._waiting if not len(lane.queue)]:
            del self._waiting[lane]
        for lane in self._waiting:
            arrival = lane.queue.first_arrival()
            if arrival is None or arrival >= best_arrival or not lane.may_run():
                continue
            ready_at = lane.queue.ready_at(now, lane.limit)
            if ready_at is not None and ready_at <= now:
                best, best_arrival = lane, arrival
        if best is None:
            return None
        jobs = best.queue.take(best.limit, self._share(best))
        if not len(best.queue):
            del self._waiting[best]
        self._running += 1
        best.running += 1
        return Batch(best, jobs)

    def _share(self, lane: Lane) -> int | None:
        """Return how many requests the next run leaves for the other slots that are free; None for no matter.

        Two processors are through with two halves before one is with the whole. Where runs are short they
        follow each other on one thread, and a run that was asked to be large is to be.
        """
        free, waiting = self._slots - self._running, len(lane.queue)
        if free == 1 or waiting == 1 or lane.must_merge or self._is_short(lane, min(waiting, lane.limit)):
            return None
        return -(-waiting // free)

    def _next_moment(self, now: float) -> float | None:
        """Return when the first delay or time-out ends; the lock is held."""
        moments: list[float] = []
        for lane in self._waiting:
            expiry, ready_at = lane.queue.next_expiry(), lane.queue.ready_at(now, lane.limit)
            moments += [moment for moment in (expiry, ready_at) if moment is not None and moment > now]
            if lane.delay_seconds and ready_at is not None and ready_at <= now:
                # They wait for a run to end, which takes some of them; the delay of the others is not over
                # then, and nobody else looks at when it is.
                moments.append(now + max(lane.delay_seconds, _LOOK_SECONDS))
        return min(moments, default=None)

    def _is_short(self, lane: Lane, rows: int) -> bool:
        if lane.runs_elsewhere:
            return False
        expected = lane.pace.expected_seconds(rows)
        return expected is not None and expected <= self._short_seconds

    def _run_and_go_on(self, batch: Batch) -> None:
        """Run a batch on a thread of the crew, and then whatever waits by then."""
        next_batch: Batch | None = batch
        while next_batch is not None:
            self._run(next_batch)
            next_batch = self._next_batch(self._clock())

    def _run(self, batch: Batch) -> None:
        """Run a batch, give its slot back, and settle its jobs."""
        lane, jobs = batch.lane, batch.jobs
        outcomes: list[Outcome] = survive(
            f"running {lane.what}",
            lambda: self._outcomes(lane, jobs),
            lambda _: [_broken(lane) for _ in jobs],
        )
        with self._lock:
            self._running -= 1
            if not lane.keeps_order:
                lane.running -= 1
        for job, outcome in zip(jobs, outcomes, strict=True):
            _settle(job, outcome)
        if lane.keeps_order:
            # Not before: the next run's answers would overtake these.
            with self._lock:
                lane.running -= 1

    def _outcomes(self, lane: Lane, jobs: list[Job]) -> list[Outcome]:
        """Return what became of each job, those that nobody waits for any more not being run."""
        refusals = [self._refusal(job) for job in jobs]
        wanted = [job for job, refusal in zip(jobs, refusals, strict=True) if refusal is None]
        ran = iter(self._run_together(lane, wanted) if wanted else ())
        return [next(ran) if refusal is None else refusal for refusal in refusals]

    def _refusal(self, job: Job) -> FlyweightError | None:
        """Return why a job is not to be run, although its turn came; None when it is."""
        if job.is_over(self._clock()):
            return DeadlineExceeded(TOO_LATE)
        return None if job.is_active() else Cancelled(GONE)

    def _run_together(self, lane: Lane, jobs: list[Job]) -> list[Outcome]:
        """Return what became of each job of a run, a failed shared run being repeated one by one."""
        started, used = self._clock(), time.thread_time()
        result = _attempt(lane, jobs)
        rows = sum(job.rows for job in jobs)
        if isinstance(result, Answer):
            # With what merging costs: it is the whole that is to become cheaper. But without what others do
            # on the processor meanwhile, which is more in the time of a long run.
            seconds, used = self._clock() - started, time.thread_time() - used
            # Where the run is done by other threads, or another process, this one only waits.
            is_ours = used > _OURS * seconds
            with self._lock:
                lane.pace.note(rows, seconds, used if is_ours else None)
            if len(jobs) == 1:
                return [Done(result.outputs, started, result.run_seconds, rows, 1)]
            shares = split(result.outputs, jobs)
            if shares is not None:
                seconds, count = result.run_seconds, len(jobs)
                return [
                    Done(share, started, seconds, rows, count, leads_run=place == 0)
                    for place, share in enumerate(shares)
                ]
            _log.warning(
                "%s gave outputs without a row for each of its inputs; it runs them alone.", lane.what
            )
            with self._lock:
                lane.stop_merging()
        elif len(jobs) == 1 or not isinstance(result, InvalidRequest | RunFailed):
            return [result] * len(jobs)
        return [self._outcomes(lane, [job])[0] for job in jobs]


def _attempt(lane: Lane, jobs: list[Job]) -> Answer | FlyweightError:
    """Run jobs together once; return the answer, or what kept it from coming."""

    def run() -> Answer | FlyweightError:
        # Of a shared run nobody's deadline is everybody's: each was looked at when it was taken.
        deadline = jobs[0].deadline_seconds if len(jobs) == 1 else None
        try:
            return lane.runtime.run(merge(jobs), jobs[0].outputs, deadline)
        except FlyweightError as error:
            return error

    return survive(f"running {lane.what}", run, lambda _: _broken(lane))


def _broken(lane: Lane) -> RunFailed:
    """Return what a caller learns of a bug: where to look for it in the log, and nothing else."""
    identity = uuid.uuid4().hex[:12]
    _log.error("internal error %s while running %s; the error is logged above", identity, lane.what)
    return RunFailed(f"internal error; see the server's log (id {identity})")


def _settle(job: Job, outcome: Outcome) -> None:
    """Settle a job; a bug in that is not its batch-mates' trouble."""
    survive("answering a request", lambda: job.settle(outcome), lambda _: None)
