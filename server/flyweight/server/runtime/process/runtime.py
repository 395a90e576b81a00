"""A variant whose session is in a worker process."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from flyweight.server.errors import NotReady, RunFailed
from flyweight.server.runtime.memory import Held, process_folder, read_cpu_seconds, read_held
from flyweight.server.runtime.process.child import Child
from flyweight.server.runtime.process.post import GRACE_SECONDS, Post
from flyweight.server.runtime.process.startup import Report
from flyweight.server.runtime.process.supervisor import Supervisor
from flyweight.server.runtime.seam import (
    Answer,
    Array,
    MemoryReport,
    RuntimeState,
    Signature,
    Usage,
)
from flyweight.server.runtime.slots import RunSlots

_log = logging.getLogger(__name__)

# A killed process is gone within milliseconds, unless it waits for a disk; it is then reaped when it is.
_CLOSE_SECONDS: Final = 3 * GRACE_SECONDS


class ProcessRuntime:
    """Hands runs to the worker that holds the post: the caller's thread sends, and waits in the kernel."""

    def __init__(self, post: Post, report: Report, supervisor: Supervisor, slots: RunSlots) -> None:
        self._post = post
        self._report = report
        self._supervisor = supervisor
        self._slots = slots
        self._is_closed = False
        self._all_outputs = tuple(spec.name for spec in report.signature.outputs)
        self._memory = MemoryReport(post.task.file.folder_bytes, report.load_pss_bytes)

    @property
    def signature(self) -> Signature:
        """Return the session's inputs (initializers that may be overridden as optional ones) and outputs."""
        return self._report.signature

    @property
    def memory(self) -> MemoryReport:
        """Return the bytes of the model's folder, and the growth of the worker's PSS while it loaded."""
        return self._memory

    @property
    def is_elsewhere(self) -> bool:
        """Return True: the caller of a run only waits."""
        return True

    @property
    def state(self) -> RuntimeState:
        """Return READY while a worker answers, DOWN from its death until the next one does."""
        if self._is_closed:
            return RuntimeState.CLOSED
        return RuntimeState.READY if self._post.child is not None else RuntimeState.DOWN

    @property
    def restarts(self) -> int:
        """Return how many times a worker took a dead one's place."""
        return self._post.restarts

    @property
    def pid(self) -> int | None:
        """Return the number of the worker's process; None while there is none."""
        child = self._post.child
        return None if child is None else child.pid

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Have the worker run the model when a turn is free; see `Runtime.run`."""
        self._require_worker()
        with self._slots.hold(deadline_monotonic) as queue_seconds:
            child = self._require_worker()
            deadline = math.inf if deadline_monotonic is None else deadline_monotonic
            answers, run_seconds = child.exchange(inputs, tuple(outputs or self._all_outputs), deadline)
        return Answer(answers, queue_seconds, run_seconds)

    def _require_worker(self) -> Child:
        child = self._post.child
        if child is not None:
            return child
        if self._is_closed:
            raise RunFailed("The model was unloaded.")
        raise NotReady(
            f"The worker process of {self._post.task.name} died and is started again; ask again in a moment.",
            self._post.task.model,
        )

    def usage(self) -> Usage:
        """Return what the worker takes now, all of it: the empty worker's share is `base_pss_bytes`."""
        usage = Usage(
            file_bytes=self._memory.file_bytes,
            load_peak_bytes=self._report.load_peak_bytes,
            base_pss_bytes=self._report.base_pss_bytes,
            restarts=self._post.restarts,
        )
        child = self._post.child
        if child is None:
            return usage
        folder = process_folder(child.pid)
        held, cpu_seconds = read_held(folder), read_cpu_seconds(folder)
        if held is None or child is not self._post.child:
            # It died meanwhile, and its number may be another's.
            return usage
        return replace(
            usage,
            pss_bytes=held.pss_bytes,
            uss_bytes=held.uss_bytes,
            peak_rss_bytes=held.peak_resident_bytes,
            cpu_seconds=cpu_seconds,
            **self._own(held),
        )

    def _own(self, held: Held) -> dict[str, int]:
        """Return what of it is the variant's: what loading added, and what came to its own pages since.

        Not the PSS less that of the empty worker: of the code that workers share, each one's part shrinks
        when another starts, by 10 MB with four of them.
        """
        report = self._report
        if report.loaded_anonymous_bytes is None:
            return {}
        grown = held.anonymous_bytes - report.loaded_anonymous_bytes
        return {
            "own_pss_bytes": max(0, (report.load_pss_bytes or 0) + grown),
            "own_uss_bytes": max(0, (report.load_uss_bytes or 0) + grown),
            "arena_bytes": max(0, grown),
        }

    def close(self) -> None:
        """Have the worker end, and wait for that, for a bounded time."""
        self._is_closed = True
        self._supervisor.close(self._post)
        try:
            self._post.closed.result(_CLOSE_SECONDS)
        except TimeoutError:
            _log.error("The worker of %s does not end; it is reaped when it does.", self._post.task.name)
