"""Loads side by side: what may overlap, what may not, and what is told meanwhile."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime

if TYPE_CHECKING:
    from conftest import Bench

SOON = 20.0


def scale_of(path: Path) -> FakeRuntime:
    return FakeRuntime(scale=2.0)


@pytest.fixture
def wide(make_bench: Callable[..., "Bench"]) -> "Bench":
    """Return a bench with three load slots whose loads the test does when it likes."""
    bench = make_bench(False, 3)
    bench.factory._make = scale_of
    bench.jobs = []
    return bench


def names(bench: "Bench") -> list[str]:
    return sorted("/".join(key) for key in bench.board.picture().busy)


def test_variants_of_several_models_are_loaded_side_by_side_up_to_the_slots(
    wide: "Bench", publish: Any
) -> None:
    for model in ("a", "b", "c", "d"):
        publish("baseline", 2.0, model=model)
    wide.scan(3)
    wide.work()
    assert wide.jobs is not None
    assert names(wide) == ["a/baseline", "b/baseline", "c/baseline"]
    assert wide.states()["d/baseline"] == "LOADING"
    assert wide.reason("d", "baseline") == "waiting"
    wide.jobs.pop(1)()
    wide.work()
    assert names(wide) == ["a/baseline", "c/baseline", "d/baseline"]
    assert wide.ready("b") == ["baseline"]


def test_the_first_variant_of_a_model_is_loaded_alone_and_the_rest_together(
    wide: "Bench", publish: Any
) -> None:
    for variant in ("int8", "baseline", "fp16"):
        publish(variant, 2.0, parent="" if variant == "baseline" else "baseline")
    wide.scan(3)
    wide.work()
    assert wide.jobs is not None
    assert names(wide) == ["tiny/baseline"]
    wide.jobs.pop()()
    wide.work()
    assert names(wide) == ["tiny/fp16", "tiny/int8"]


def test_one_variant_is_never_loaded_twice_at_a_time(wide: "Bench", publish: Any) -> None:
    publish("baseline", 2.0)
    wide.scan(3)
    wide.work()
    publish("baseline", 2.0, edit=lambda manifest: manifest.quality.figures.update(recall=1.0))
    wide.scan(3)
    assert wide.work() == 0
    assert not wide.board.is_settled()
    assert wide.jobs is not None
    (job,) = wide.jobs
    wide.jobs.clear()
    job()
    assert wide.states() == {"tiny/baseline": "UNAVAILABLE"}
    assert "is loaded again" in wide.reason("tiny", "baseline")
    assert wide.work() == 1, "its files are other ones, so it is due at once"
    wide.jobs.pop()()
    assert wide.states() == {"tiny/baseline": "READY"}


def test_an_unload_does_not_wait_for_a_load_of_another_model(
    wide: "Bench", repository: Path, publish: Any
) -> None:
    assert wide.jobs is not None
    wide.factory._make = lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0)
    wide.scan(3)
    while wide.work():
        for job in [wide.jobs.pop() for _ in list(wide.jobs)]:
            job()
    publish("baseline", 2.0, model="large")
    wide.scan(3)
    wide.work()
    assert names(wide) == ["large/baseline"]
    wide.board.admit("tiny", wanted=False)
    wide.work()
    assert wide.ready() == []
    assert wide.board.is_drained("tiny")
    assert names(wide) == ["large/baseline"]


def test_a_failure_beside_a_load_is_told_at_once_and_harms_it_not(wide: "Bench", publish: Any) -> None:
    publish("baseline", 2.0, model="good")
    publish("baseline", 2.0, model="bad", golden_scale=5.0)
    wide.scan(3)
    wide.work()
    assert wide.jobs is not None
    bad, good = wide.jobs
    bad()
    assert wide.states() == {"bad/baseline": "UNAVAILABLE", "good/baseline": "LOADING"}
    assert "golden" in wide.reason("bad", "baseline")
    wide.clock.seconds += 1.0
    wide.jobs.clear()
    wide.work()
    assert names(wide) == ["bad/baseline", "good/baseline"], "its retry does not wait either"
    good()
    assert wide.states()["good/baseline"] == "READY"


def test_a_retry_in_progress_does_not_keep_the_worker_spinning(wide: "Bench", publish: Any) -> None:
    publish("baseline", 2.0, golden_scale=5.0)
    wide.scan(3)
    wide.work()
    assert wide.jobs is not None
    wide.jobs.pop()()
    wide.work()
    assert wide.board.seconds_to_retry() == 1.0
    wide.clock.seconds += 1.0
    assert wide.work() == 1
    assert wide.board.seconds_to_retry() is None


def test_a_model_asked_away_while_it_is_loaded_never_answers(wide: "Bench", publish: Any) -> None:
    publish("baseline", 2.0)
    wide.scan(3)
    wide.work()
    wide.board.admit("tiny", wanted=False)
    assert wide.jobs is not None
    wide.jobs.pop()()
    wide.work()
    assert not any(table.models for table in wide.diary.tables)
    assert [runtime.closed.is_set() for runtime in wide.factory.made] == [True]
    assert wide.diary.without_scans() == ["load tiny/baseline", "unload tiny/baseline"]
    assert wide.board.is_drained()


class Loads(NullObserver):
    """Lets a test wait until so many loads have ended."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.ended: list[str] = []

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        self._end(loaded.model)

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:
        self._end(f"{model} failed")

    def _end(self, what: str) -> None:
        with self.changed:
            self.ended.append(what)
            self.changed.notify_all()

    def wait_for(self, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: what in self.ended, SOON), self.ended


class Doors:
    """A factory whose loads of "slow" models wait until the test opens the door."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.factory = FakeFactory(self._make)

    def _make(self, path: Path) -> FakeRuntime:
        if path.parent.parent.name.startswith("slow"):
            self.entered.release()
            assert self.opened.wait(SOON)
        return FakeRuntime(scale=2.0)


@pytest.fixture
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    doors.opened.set()


def test_a_small_model_is_served_while_a_slow_one_is_loaded(
    repository_root: Path, publish: Any, doors: Doors
) -> None:
    publish("baseline", 2.0, model="slow")
    manager = Manager(ManagerSettings(repository_root, 0.02, load_threads=2), doors.factory)
    manager.start()
    try:
        assert doors.entered.acquire(timeout=SOON)
        publish("baseline", 2.0, model="small")
        manager.load_model("small", SOON)
        manager.unload_model("small", SOON)
        assert not manager.table.models
    finally:
        doors.opened.set()
        manager.stop()


def test_a_load_that_fails_while_others_run_leaves_them_alone(
    repository_root: Path, publish: Any, doors: Doors
) -> None:
    publish("baseline", 2.0, model="slow")
    publish("baseline", 2.0, model="bad", golden_scale=9.0)
    loads = Loads()
    manager = Manager(ManagerSettings(repository_root, 0.02, load_threads=2), doors.factory, [loads])
    manager.start()
    try:
        with pytest.raises(LoadFailed, match="golden"):
            manager.load_model("bad", SOON)
        doors.opened.set()
        loads.wait_for("slow")
        assert list(manager.table.models) == ["slow"]
    finally:
        doors.opened.set()
        manager.stop()


def test_a_server_that_stops_in_mid_load_closes_what_the_load_brings(
    repository_root: Path, publish: Any, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load cannot be cut short, so it is left behind; what it made is closed when it comes to its end."""
    monkeypatch.setattr("flyweight.server.lifecycle.manager._LONGEST_JOIN_SECONDS", 0.05)
    publish("baseline", 2.0, model="slow")
    loads = Loads()
    manager = Manager(ManagerSettings(repository_root, 0.02), doors.factory, [loads])
    manager.start()
    assert doors.entered.acquire(timeout=SOON)
    manager.stop()
    assert doors.factory.made == []
    doors.opened.set()
    loads.wait_for("slow")
    assert doors.factory.made[0].closed.wait(SOON)
    assert not manager.table.models
