"""The manager: makes what is served follow the repository."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import DeadlineExceeded, LoadFailed, UnknownModel
from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.changes import TrafficChanges
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.lifecycle.ensembles import Ensembles
from flyweight.server.lifecycle.index import IndexEntry
from flyweight.server.lifecycle.loaders import LoadThreads
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.lifecycle.memory_guard import MemoryGuard
from flyweight.server.lifecycle.observer import Observer
from flyweight.server.lifecycle.overlay import Upload
from flyweight.server.lifecycle.source import Source
from flyweight.server.lifecycle.table import (
    Held,
    LoadedVariant,
    Pick,
    RoutingTable,
    ServedModel,
    acquire_from,
)
from flyweight.server.lifecycle.uploads import Uploads
from flyweight.server.lifecycle.watching import Watch, folders_of
from flyweight.server.lifecycle.worker import Worker
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.ensemble import StepListener, StepRun
from flyweight.server.runtime.headroom import read_headroom
from flyweight.server.runtime.seam import RuntimeFactory
from flyweight.server.runtime.spare import SpareTime
from flyweight.server.survival import survive
from flyweight.server.traffic.plan import TrafficFile

# A scan a little less than a poll after another confirms it: the clock and the wait round differently.
_QUIET_SHARE: Final = 0.8

# Scanning takes at most a fifth of a core, however often the kernel tells of changes; and what comes within a
# hundredth of a second, as the files of one copy do, is seen by one scan.
_PAUSE_FOR_SCANNING: Final = 4.0
_SHORTEST_PAUSE_SECONDS: Final = 0.01

# A load in progress cannot be cut short; at the end it is waited for this long, and then left behind.
_LONGEST_JOIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """What the operator decides.

    `explicit` serves only the models that `load_model` named; their variants and traffic.yaml still follow
    the repository. `intra_op_threads` overrules the manifests when it is not 0. `load_threads` variants are
    loaded at one time. `watch` has the kernel tell of changes, which are then seen at once and not at the
    next poll; the repository is polled all the same.
    """

    repository: Path
    poll_seconds: float = 0.5
    explicit: bool = False
    intra_op_threads: int = 0
    load_threads: int = 1
    watch: bool = True
    upload_folder: Path | None = None
    most_upload_bytes: int = 1 << 30
    memory_guard: bool = True
    memory_limit_bytes: int = 0


class Manager:
    """Owns the source's thread, which reads the repository, the worker, which unloads, and those that load.

    Every method may be called from any thread; `table` never waits. `start` and `stop` are called once.
    """

    def __init__(
        self,
        settings: ManagerSettings,
        factory: RuntimeFactory,
        observers: Sequence[Observer] = (),
        monotonic: Callable[[], float] = time.monotonic,
        spare: SpareTime | None = None,
    ) -> None:
        self._settings = settings
        self._spare = spare or SpareTime()
        self._stopping = threading.Event()
        self._work_now = threading.Event()
        self._watcher: Watch | None = None
        self._monotonic = monotonic
        self._has_started = False
        self._board = Board(
            explicit=settings.explicit,
            observers=observers,
            monotonic=monotonic,
            load_slots=settings.load_threads,
        )
        quiet_seconds = settings.poll_seconds * _QUIET_SHARE
        self._source = Source(settings.repository, quiet_seconds, self._board.accept, monotonic)
        self._loaders = LoadThreads()
        self._step_listeners: list[StepListener] = []
        ensembles = Ensembles(lambda: self._board.table, self._tell_step)
        guard = MemoryGuard(lambda: read_headroom(settings.memory_limit_bytes))
        self._worker = Worker(
            self._board,
            partial(self._load, factory, ensembles, guard),
            self._loaders.submit,
            monotonic,
            wake=self._work_now.set,
        )
        self._changes = TrafficChanges(self._board, self._request_scan, monotonic)
        self._uploads = Uploads(settings.upload_folder, settings.most_upload_bytes)
        self._threads = [
            threading.Thread(target=self._follow, name="flyweight-source", daemon=True),
            threading.Thread(target=self._work, name="flyweight-worker", daemon=True),
        ]

    @property
    def table(self) -> RoutingTable:
        """Return the current table."""
        return self._board.table

    def watch_steps(self, listener: StepListener) -> None:
        """Tell `listener` of every step that an ensemble runs; to be asked for before `start`."""
        self._step_listeners.append(listener)

    def _tell_step(self, step: StepRun) -> None:
        for listener in self._step_listeners:
            listener(step)

    def start(self) -> None:
        """Start reading the repository.

        Raises:
            RepositoryError: the repository is not a folder that can be read.
        """
        scan_repository(self._settings.repository)
        self._watcher = Watch() if self._settings.watch else Watch(open_inotify=None)
        for thread in self._threads:
            thread.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop all threads, wait for leases up to `drain_seconds`, and close what is idle."""
        self._stopping.set()
        self._wake_source()
        self._work_now.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_LONGEST_JOIN_SECONDS)
        if self._watcher is not None and not self._threads[0].is_alive():
            self._watcher.close()
        self._loaders.stop(_LONGEST_JOIN_SECONDS)
        self._worker.finish()
        ends = time.monotonic() + drain_seconds
        while not self._board.is_drained() and (left := ends - time.monotonic()) > 0:
            self._work_now.wait(left)
            self._work_now.clear()
            self._worker.close_idle()
        self._uploads.close()

    def wait_until_settled(self, timeout_seconds: float) -> bool:
        """Wait until everything on disk is served or has failed; tell whether that came in time."""
        is_settled = self._board.wait_for(self._board.is_settled, timeout_seconds)
        self._has_started = True
        return is_settled

    def load_model(self, name: str, timeout_seconds: float = 60.0, upload: Upload | None = None) -> None:
        """Serve a model, reading the repository again now, and wait for it.

        An `upload` takes the place of what the repository holds, until the model is loaded again without one
        or unloaded.

        Raises:
            UnknownModel: the repository does not have it.
            LoadFailed: a variant of it could not be loaded; the others are served. An upload of which a
                variant could not be loaded is taken back as a whole.
            RepositoryError: the repository cannot be read.
            DeadlineExceeded: it took longer than `timeout_seconds`, and goes on.
        """
        if upload is None:
            self._board.admit(name, wanted=True)
        else:
            with self._uploads.lay(name, upload) as overlay:
                self._board.admit(name, wanted=True, overlay=overlay)
        number = self._request_scan()
        if not self._board.wait_for(lambda: self._board.is_settled(name, number), timeout_seconds):
            raise DeadlineExceeded(
                f"The model {name!r} was not loaded within {timeout_seconds:g} s; it still is being loaded."
            )
        upload_error = self._board.upload_error(name)
        if upload_error:
            raise LoadFailed(f"The model {name!r} was not loaded as it was uploaded: {upload_error}")
        picture = self._board.picture()
        if picture.emission is not None and picture.emission.error:
            raise RepositoryError(picture.emission.error)
        unread = [fault.reason for fault in picture.desired.faults if fault.model == name]
        if unread:
            raise LoadFailed(f"The model {name!r} was not loaded: {' '.join(unread)}")
        if name not in picture.desired.models:
            self._board.forget(name)
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
        if not self._board.wait_for(
            lambda: name not in self.table.models and self._board.is_drained(name), timeout_seconds
        ):
            raise DeadlineExceeded(
                f"The model {name!r} was not unloaded within {timeout_seconds:g} s; requests still use it."
            )

    def set_traffic(
        self, name: str, traffic: TrafficFile, expected_revision: str = "", timeout_seconds: float = 60.0
    ) -> ServedModel:
        """Replace the traffic plan of a model; see `TrafficChanges.set`."""
        return self._changes.set(name, traffic, expected_revision, timeout_seconds)

    def promote(self, name: str, variant: str, timeout_seconds: float = 60.0) -> ServedModel:
        """Make a variant the baseline and give it all the traffic; see `TrafficChanges.promote`."""
        return self._changes.promote(name, variant, timeout_seconds)

    def roll_back(self, name: str, timeout_seconds: float = 60.0) -> ServedModel:
        """Undo the last promotion; see `TrafficChanges.roll_back`."""
        return self._changes.roll_back(name, timeout_seconds)

    def index(self) -> list[IndexEntry]:
        """Return every model and variant that is known, in order of name."""
        return self._board.index()

    def acquire(self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]) -> Held[Pick]:
        """Lease the variant that `pick` finds in the current table; see `acquire_from`."""
        return acquire_from(lambda: self._board.table, pick)

    def _request_scan(self) -> int:
        number = self._source.next_number
        self._wake_source()
        self._work_now.set()
        return number

    def _wake_source(self) -> None:
        if self._watcher is not None:
            self._watcher.wake()

    def _follow(self) -> None:
        watcher = self._watcher
        assert watcher is not None
        while not self._stopping.is_set():
            began = self._monotonic()
            self._spare.look()
            survive("reading the repository", self._source.read, lambda _: None)
            self._work_now.set()
            is_new = watcher.follow(folders_of(self._settings.repository, self._source.scanned))
            took = self._monotonic() - began
            pause = min(max(_PAUSE_FOR_SCANNING * took, _SHORTEST_PAUSE_SECONDS), self._settings.poll_seconds)
            self._stopping.wait(pause)
            # A folder may have changed between the scan that found it and the moment it was watched.
            if not is_new:
                poll = began + self._settings.poll_seconds - self._monotonic()
                confirming = self._source.seconds_to_confirm()
                watcher.wait(poll if confirming is None else min(poll, confirming))

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._work_now.clear()
            if not survive("serving the repository", self._worker.step, lambda _: False):
                self._sweep()
                self._work_now.wait(self._board.seconds_to_retry())

    def _load(
        self, factory: RuntimeFactory, ensembles: Ensembles, guard: MemoryGuard, source: VariantSource
    ) -> LoadedVariant:
        """Load a variant if there is memory for it; an ensemble takes none of its own."""
        is_guarded = self._settings.memory_guard and not source.is_ensemble
        # Who is served already must not feel that another comes; but what failed once may have starved.
        is_beside_traffic = self._has_started and bool(self._board.table.models)
        has_failed = self._board.has_failed((source.model, source.variant))
        gives_way = is_beside_traffic and not has_failed and self._spare.is_enough()
        with guard.admit(source) if is_guarded else nullcontext():
            return load_variant(
                source, factory, self._settings.intra_op_threads, ensembles, gives_way=gives_way
            )

    def _sweep(self) -> None:
        """Remove uploads that nobody serves any more."""
        if not self._uploads.is_empty:
            self._uploads.sweep(self._board.folders_in_use)
