"""Several processes on this machine that try recipes of one study.

Each has the model, the data and a meter of its own. They build at the same time and measure in turns. One
that dies costs its trial, which is given to another when its sign of life fails to come.
"""

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.search.extra import SearchError
from flyweight.compressor.stopping import held

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from flyweight.compressor.evaluate.bench import BenchSettings
    from flyweight.compressor.search.budget import Budget
    from flyweight.compressor.search.search import Hunt, SearchData, SearchSettings
    from flyweight.compressor.search.space import Space

_LOOK_SECONDS: Final = 0.5
# How long a worker may take to leave after it was asked to; a run of a large model cannot be interrupted.
_LEAVING_SECONDS: Final = 2.0
# Workers that replace dead ones, for each place; more says that something is wrong with the machine.
_REPLACEMENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is told; only data, so that it can be handed to another process."""

    source: Model
    budget: "Budget"
    data: "SearchData"
    settings: "SearchSettings"
    space: "Space"
    calibration: DataSet
    training: DataSet | None
    workspace: Path
    seed: int
    threads: int
    seconds: float


def work_together(hunt: "Hunt", last_moment: float) -> None:
    """Run the workers of a hunt until there are enough trials, the time is up, or none is left alive.

    Raises:
        SearchError: the model cannot be handed to another process, or every worker died.
        KeyboardInterrupt: Ctrl-C; the workers have ended, and the study can be gone on with.
    """
    crew = _Crew(hunt, last_moment)
    try:
        crew.work()
    finally:
        crew.dismiss()


class _Crew:
    """Owns the worker processes; all have ended when `dismiss` returns."""

    def __init__(self, hunt: "Hunt", last_moment: float) -> None:
        self._hunt, self._last = hunt, last_moment
        self._context = multiprocessing.get_context("spawn")
        self._replacements = _REPLACEMENTS * hunt.settings.workers
        self._alive: list[SpawnProcess] = []
        self._begun = 0

    def work(self) -> None:
        """Start everyone, replace the dead, and tell how far they are."""
        for _ in range(self._hunt.settings.workers):
            self._hire()
        while self._alive:
            self._hunt.tell_progress()
            multiprocessing.connection.wait([worker.sentinel for worker in self._alive], _LOOK_SECONDS)
            for worker in [worker for worker in self._alive if worker.exitcode is not None]:
                self._alive.remove(worker)
                if worker.exitcode != 0 and self._replacements > 0 and time.monotonic() < self._last:
                    self._replacements -= 1
                    self._hire()
        if not self._hunt.study.finished() and time.monotonic() < self._last:
            raise SearchError("Every worker of the search died; look at the memory, or use fewer workers.")

    def dismiss(self) -> None:
        """End whoever is left: ask, then insist."""
        for worker in self._alive:
            worker.terminate()
        deadline = time.monotonic() + _LEAVING_SECONDS
        for worker in self._alive:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.exitcode is None:
                worker.kill()
                worker.join()
        self._alive.clear()

    def _hire(self) -> None:
        """Start a worker and hand it its job.

        Not as an argument: multiprocessing would wait for ever for one that dies before it has read it all.
        """
        job = run_foreign(
            lambda: bytes(ForkingPickler.dumps(self._job())),
            lambda reason: SearchError(
                f"The model cannot be handed to other processes ({reason}); use one worker."
            ),
        )
        theirs, ours = self._context.Pipe(duplex=False)
        with ours:
            with theirs:
                self._start_deaf(self._context.Process(target=_work, args=(theirs,), daemon=True))
            # Whoever is dead by now is found so by its exit code.
            with contextlib.suppress(BrokenPipeError):
                ours.send_bytes(job)

    def _start_deaf(self, worker: "SpawnProcess") -> None:
        """Start a worker that Ctrl-C, which reaches the whole group, does not reach while it imports.

        What is blocked here is blocked in who is started.
        """
        # Unblocks the signal when it starts a process of its own, for the first worker.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with held("a worker that nobody knows of yet"):
                worker.start()
                self._alive.append(worker)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _job(self) -> Job:
        hunt, context = self._hunt, self._hunt.context
        self._begun += 1
        workspace = context.workspace / f"worker-{self._begun}"
        workspace.mkdir()
        return Job(
            hunt.source,
            hunt.budget,
            hunt.data,
            replace(hunt.settings, workers=1, study=hunt.place, cache=hunt.cache, bench=_sendable(hunt)),
            hunt.space,
            context.calibration,
            context.training,
            workspace,
            context.seed,
            context.threads,
            context.remaining_seconds(),
        )


def _sendable(hunt: "Hunt") -> "BenchSettings":
    """Return the bench's settings with a plain dictionary in them: a read-only view cannot be sent."""
    settings = hunt.settings.bench
    return replace(settings, session=replace(settings.session, config=dict(settings.session.config)))


def _work(told: "Connection[None, Job]") -> None:
    """Be a worker: what is spawned runs this."""
    # Ctrl-C reaches the whole group of processes; the parent decides, and SIGTERM is its word.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from flyweight.compressor.search.search import Hunt

    try:
        job = told.recv()
    except EOFError:
        return  # the parent was killed
    parent = os.getppid()
    context = Context(
        workspace=job.workspace,
        calibration=job.calibration,
        training=job.training,
        baseline=job.source.module,
        seed=job.seed,
        threads=job.threads,
        deadline=math.inf if math.isinf(job.seconds) else time.monotonic() + job.seconds,
    )
    hunt = Hunt(job.source, job.budget, job.data, context, job.settings)
    try:
        hunt.prepare(job.space)
        hunt.run(lambda: os.getppid() != parent)
    finally:
        hunt.close()
