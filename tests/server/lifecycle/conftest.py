"""A manager without threads: a board, a source and a worker that a test drives, with fake runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.ensembles import Ensembles
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.lifecycle.source import Source
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.lifecycle.worker import Worker
from flyweight.server.runtime.fake import FakeFactory

if TYPE_CHECKING:
    from flyweight.server.lifecycle.observer import Observer
    from flyweight.server.runtime.ensemble import StepRun


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Diary:
    """An observer that writes down everything, one line an event."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tables: list[RoutingTable] = []

    def on_scan(self, *, ok: bool) -> None:
        self.lines.append("scan ok" if ok else "scan failed")

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        self.lines.append(f"load {loaded.model}/{loaded.name}")

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:
        self.lines.append(f"failed {model}/{variant}")

    def on_unload(self, model: str, variant: str) -> None:
        self.lines.append(f"unload {model}/{variant}")

    def on_plan(self, served: ServedModel) -> None:
        weights = " ".join(f"{name}={weight:g}" for name, weight in served.plan.weights)
        self.lines.append(f"plan {served.name} {weights}")

    def on_plan_error(self, model: str, reason: str) -> None:
        self.lines.append(f"plan error {model}")

    def on_table(self, table: RoutingTable) -> None:
        self.tables.append(table)

    def without_scans(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("scan")]


class Bench:
    """A lifecycle on a repository, one deliberate step at a time."""

    def __init__(self, root: Path, explicit: bool = False, load_slots: int = 1) -> None:
        self.root = root
        self.clock = Clock()
        self.diary = Diary()
        self.wakes = 0
        observer: Observer = self.diary
        self.board = Board(
            explicit=explicit, observers=[observer], monotonic=self.clock, load_slots=load_slots
        )
        self.source = Source(root, 0.4, self.board.accept, self.clock)
        self.factory = FakeFactory()
        self.steps: list[StepRun] = []
        self.ensembles = Ensembles(lambda: self.board.table, self.steps.append)
        # None does a load on the spot; a list collects loads, for the test to do when it likes.
        self.jobs: list[Callable[[], None]] | None = None
        self.worker = Worker(
            self.board,
            lambda source: load_variant(source, self.factory, ensembles=self.ensembles),
            self._spawn,
            self.clock,
            self._wake,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def _spawn(self, job: Callable[[], None]) -> None:
        if self.jobs is None:
            job()
        else:
            self.jobs.append(job)

    def scan(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.seconds += 0.5
            self.source.read()

    def work(self) -> int:
        """Do everything that is due; return how many actions that were."""
        count = 0
        while self.worker.step():
            count += 1
            assert count < 100, "the worker never comes to rest"
        return count

    def settle(self) -> None:
        """Scan until everything is believed, and do what follows."""
        self.scan(3)
        self.work()

    @property
    def table(self) -> RoutingTable:
        return self.board.table

    def ready(self, model: str = "tiny") -> list[str]:
        served = self.table.models.get(model)
        return sorted(served.variants) if served is not None else []

    def weights(self, model: str = "tiny") -> dict[str, float]:
        return dict(self.table.models[model].plan.weights)

    def states(self) -> dict[str, str]:
        return {f"{e.name}/{e.version}": e.state.value for e in self.board.index()}

    def reason(self, model: str, variant: str = "") -> str:
        (entry,) = [e for e in self.board.index() if (e.name, e.version) == (model, variant)]
        return entry.reason


@pytest.fixture
def bench(repository_root: Path) -> Bench:
    return Bench(repository_root)


@pytest.fixture
def make_bench(repository_root: Path) -> Callable[..., Bench]:
    return lambda explicit, load_slots=1: Bench(repository_root, explicit, load_slots)
