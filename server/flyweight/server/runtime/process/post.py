"""The post of one variant's worker: who holds it, and what comes next when its holder dies."""

import logging
import signal
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from typing import Final

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.kills import KillWatch
from flyweight.server.runtime.memory import process_folder, read_cpu_seconds
from flyweight.server.runtime.process.child import Child, Task, ending_of
from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.process.restarts import HangWatch, deaths_in_a_row, delay_seconds
from flyweight.server.runtime.process.startup import Report

_log = logging.getLogger(__name__)

# Two gigabytes from a network volume at 5 MB/s take seven minutes.
LOAD_SECONDS: Final = 600.0
# A worker that is asked to end does so within a millisecond; a stopped one never.
GRACE_SECONDS: Final = 2.0

_KILLED: Final = ending_of(-signal.SIGKILL)
_KILLED_FOR_MEMORY: Final = "was killed by the kernel (SIGKILL) because the memory of its cgroup was used up"


class Phase(Enum):
    """What a post is doing."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    ENDING = "ending"
    CLOSED = "closed"


class Post:
    """Belongs to the supervisor's thread; other threads read `child`, `phase` and `restarts`, and wait.

    Args:
        task: what workers are started for.
        monotonic: the clock.
        kills: tells why a worker was killed that nobody here killed; of all posts of one supervisor.
    """

    def __init__(
        self,
        task: Task,
        monotonic: Callable[[], float],
        kills: KillWatch,
    ) -> None:
        self.task = task
        # The worker that answers; None while there is none.
        self.child: Child | None = None
        self.phase = Phase.DOWN
        self.restarts = 0
        self.first: Future[Report] = Future()
        self.closed: Future[None] = Future()
        self._monotonic = monotonic
        self._kills = kills
        # The process there is, whether it answers yet or not.
        self.process: Child | None = None
        self._report: Report | None = None
        self._since = 0.0
        self._deadline = monotonic()
        self._deaths = 0
        self._hang = HangWatch()
        self._failure = LoadFailed(f"{task.file.path} was not loaded: it was unloaded before that.")

    @property
    def next_look(self) -> float | None:
        """Return the moment at which `look` has something to do if nothing happens before."""
        return None if self.phase in {Phase.READY, Phase.CLOSED} else self._deadline

    def look(self) -> None:
        """Do what the moment asks for."""
        now = self._monotonic()
        if self.process is not None:
            if self.phase is Phase.STARTING:
                self._read_report()
            ended = self.process.reap()
            if ended is not None:
                self._on_end(now, ended)
                return
        if self.phase is Phase.STARTING:
            self._await_report(now)
        elif self.phase is Phase.READY:
            self._watch(now)
        elif self.phase is Phase.DOWN and now >= self._deadline:
            self._start(now)
        elif self.phase is Phase.ENDING and self.process is not None and now >= self._deadline:
            self.process.kill()
            self._deadline = now + GRACE_SECONDS

    def settle(self) -> None:
        """Tell those who wait that the post is closed, and nothing of it is left."""
        if not self.first.done():
            self.first.set_exception(self._failure)
        self.closed.set_result(None)

    def close(self) -> None:
        """Ask the worker to end; `closed` is settled when it has."""
        if self.phase is Phase.CLOSED:
            return
        self.child = None
        self.phase = Phase.ENDING
        if self.process is None:
            self.phase = Phase.CLOSED
            return
        self.process.ask_to_end()
        self._deadline = self._monotonic() + GRACE_SECONDS

    def _start(self, now: float) -> None:
        self._since = now
        try:
            self.process = Child(self.task)
        except LoadFailed as failure:
            self._on_failed_start(now, failure)
            return
        self.phase = Phase.STARTING
        self._report = None
        self._deadline = now + LOAD_SECONDS

    def _read_report(self) -> None:
        assert self.process is not None
        try:
            if self._report is None:
                self._report = self.process.read_report()
        except PacketFault as fault:
            self._report = Report(failure=f"{self.task.file.path} cannot be loaded: {fault}.")
            self.process.kill()

    def _await_report(self, now: float) -> None:
        assert self.process is not None
        if self._report is not None and not self._report.failure:
            self._on_ready(now, self._report)
        elif now >= self._deadline:
            self._report = Report(
                failure=f"{self.task.file.path} was not loaded within {LOAD_SECONDS:g} s; it may be too "
                "large for where it is read from."
            )
            self.process.kill()
            self._deadline = now + GRACE_SECONDS

    def _on_ready(self, now: float, report: Report) -> None:
        if not self.first.done():
            self.first.set_result(report)
            # Who takes a dead worker's place is waited for by the variant's own traffic.
            self.task = self.task.without_giving_way()
        elif report.signature != self.first.result().signature:
            # The file was replaced under the variant's name; the repository's next reading tells the manager.
            self._report = Report(failure=f"{self.task.file.path} is another model than before.")
            assert self.process is not None
            self.process.kill()
            return
        else:
            self.restarts += 1
        self._since = now
        self.child = self.process
        self.phase = Phase.READY
        if self.restarts:
            _log.info("The worker of %s was started again (%d).", self.task.name, self.restarts)

    def _watch(self, now: float) -> None:
        assert self.process is not None
        cpu_seconds = read_cpu_seconds(process_folder(self.process.pid))
        if self._hang.is_hung(now, self.process.progress, cpu_seconds):
            _log.error("The worker of %s has runs and does nothing; it is killed.", self.task.name)
            self.process.kill()

    def _on_end(self, now: float, ended: str) -> None:
        was_loading = self.phase is Phase.STARTING
        assert self.process is not None
        is_foreign = ended == _KILLED and not self.process.was_killed_here
        if is_foreign and self._kills.has_killed():
            ended = _KILLED_FOR_MEMORY
        self.process = self.child = None
        if self.phase is Phase.ENDING:
            self.phase = Phase.CLOSED
        elif was_loading:
            failure = self._report.failure if self._report is not None else ""
            self._on_failed_start(now, LoadFailed(failure or self._loading_ended(ended)))
        else:
            self._await_restart(now, f"The worker of {self.task.name} {ended}.")

    def _loading_ended(self, ended: str) -> str:
        return (
            f"{self.task.file.path} cannot be loaded: its worker process {ended} while it was loading; the "
            "model may need more memory than there is, or break the runtime."
        )

    def _on_failed_start(self, now: float, failure: LoadFailed) -> None:
        if self.first.done():
            # However long the start took, nothing has lived.
            self._since = now
            self._await_restart(now, str(failure))
            return
        self._failure = failure
        self.phase = Phase.CLOSED

    def _await_restart(self, now: float, reason: str) -> None:
        self._deaths = deaths_in_a_row(self._deaths, now - self._since)
        delay = delay_seconds(self._deaths)
        self._deadline = now + delay
        self.phase = Phase.DOWN
        _log.error("%s It is started again in %g s.", reason, delay)
