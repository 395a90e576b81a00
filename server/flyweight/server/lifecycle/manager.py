"""The manager: makes what is served follow the repository."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import DeadlineExceeded, LoadFailed, UnknownModel
from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.border import survive
from flyweight.server.lifecycle.index import IndexEntry
from flyweight.server.lifecycle.observer import Observer
from flyweight.server.lifecycle.source import Source
from flyweight.server.lifecycle.table import Held, LoadedVariant, Pick, RoutingTable, lease_from
from flyweight.server.lifecycle.worker import Worker
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.seam import RuntimeFactory

# A scan a little less than a poll after another confirms it: the clock and the wait round differently.
_QUIET_SHARE: Final = 0.8

# A load in progress cannot be cut short; at the end it is waited for this long, and then left behind.
_LONGEST_JOIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the operator decides.

    `explicit` serves only the models that `load_model` named; their variants and traffic.yaml still follow
    the repository. `intra_op_threads` overrules the manifests when it is not 0.
    """

    repository: Path
    poll_seconds: float = 0.5
    explicit: bool = False
    intra_op_threads: int = 0


class Manager:
    """Owns two threads: the source's, which reads the repository, and the worker, which loads and unloads.

    Every method may be called from any thread; `table` never waits. `start` and `stop` are called once.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        factory: RuntimeFactory,
        observers: Sequence[Observer] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._scan_now = threading.Event()
        self._work_now = threading.Event()
        self._board = Board(explicit=settings.explicit, observers=observers, monotonic=monotonic)
        quiet_seconds = settings.poll_seconds * _QUIET_SHARE
        self._source = Source(settings.repository, quiet_seconds, self._board.accept, monotonic)
        self._worker = Worker(
            self._board, factory, settings.intra_op_threads, monotonic, wake=self._work_now.set
        )
        self._threads = [
            threading.Thread(target=self._watch, name="flyweight-source", daemon=True),
            threading.Thread(target=self._work, name="flyweight-worker", daemon=True),
        ]

    @property
    def table(self) -> RoutingTable:
        """Return the current table."""
        return self._board.table

    def start(self) -> None:
        """Start reading the repository.

        Raises:
            RepositoryError: the repository is not a folder that can be read.
        """
        scan_repository(self._settings.repository)
        for thread in self._threads:
            thread.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop both threads, wait for leases up to `drain_seconds`, and close what is idle."""
        self._stopping.set()
        self._scan_now.set()
        self._work_now.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_LONGEST_JOIN_SECONDS)
        for loaded in self._board.take_all_out():
            self._worker.retire(loaded)
        self._worker.close_idle()
        ends = time.monotonic() + drain_seconds
        while not self._board.is_drained() and (left := ends - time.monotonic()) > 0:
            self._work_now.wait(left)
            self._work_now.clear()
            self._worker.close_idle()

    def wait_until_settled(self, timeout_seconds: float) -> bool:
        """Wait until everything on disk is served or has failed; tell whether that came in time."""
        return self._wait(self._board.is_settled, timeout_seconds)

    def load_model(self, name: str, timeout_seconds: float = 60.0) -> None:
        """Serve a model, reading the repository again now, and wait for it.

        Raises:
            UnknownModel: the repository does not have it.
            LoadFailed: a variant of it could not be loaded; the others are served.
            RepositoryError: the repository cannot be read.
            DeadlineExceeded: it took longer than `timeout_seconds`, and goes on.
        """
        self._board.admit(name, wanted=True)
        number = self._request_scan()
        if not self._wait(lambda: self._board.is_settled(name, number), timeout_seconds):
            raise DeadlineExceeded(
                f"The model {name!r} was not loaded within {timeout_seconds:g} s; it still is being loaded."
            )
        picture = self._board.picture()
        if picture.emission is not None and picture.emission.error:
            raise RepositoryError(picture.emission.error)
        unread = [fault.reason for fault in picture.desired.faults if fault.model == name]
        if unread:
            raise LoadFailed(f"The model {name!r} was not loaded: {' '.join(unread)}")
        if name not in picture.desired.models:
            if self._settings.explicit:
                self._board.admit(name, wanted=False)
            raise UnknownModel(f"The repository has no model {name!r}; publish it first or correct the name.")
        reasons = picture.reasons(name)
        if reasons:
            raise LoadFailed(f"The model {name!r} was not loaded as it is on disk: {' '.join(reasons)}")

    def unload_model(self, name: str, timeout_seconds: float = 60.0) -> None:
        """Stop serving a model, until `load_model` names it, and wait for its last request.

        Raises:
            UnknownModel: it is neither served nor to be served.
            DeadlineExceeded: it took longer than `timeout_seconds`, and goes on.
        """
        if name not in self._board.picture().desired.models and name not in self.table.models:
            raise UnknownModel(
                f"There is no model {name!r} to unload; the repository index lists the models."
            )
        self._board.admit(name, wanted=False)
        self._work_now.set()
        if not self._wait(
            lambda: name not in self.table.models and self._board.is_drained(name), timeout_seconds
        ):
            raise DeadlineExceeded(
                f"The model {name!r} was not unloaded within {timeout_seconds:g} s; requests still use it."
            )

    def index(self) -> list[IndexEntry]:
        """Return every model and variant that is known, in order of name."""
        return self._board.index()

    def lease(
        self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
    ) -> AbstractContextManager[Held[Pick]]:
        """Hold the variant that `pick` finds in the current table; see `lease_from`."""
        return lease_from(lambda: self._board.table, pick)

    def _request_scan(self) -> int:
        number = self._source.next_number
        self._scan_now.set()
        self._work_now.set()
        return number

    def _wait(self, is_done: Callable[[], bool], timeout_seconds: float) -> bool:
        with self._board.changed:
            return self._board.changed.wait_for(is_done, timeout_seconds)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._scan_now.clear()
            survive("reading the repository", self._source.read, lambda _: None)
            self._work_now.set()
            self._scan_now.wait(self._settings.poll_seconds)

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._work_now.clear()
            if not survive("serving the repository", self._worker.step, lambda _: False):
                self._work_now.wait(self._board.seconds_to_retry())
