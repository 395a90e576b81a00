"""The manager with its threads, real folders and real sessions; every wait is for an event."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import DeadlineExceeded, Draining, LoadFailed, UnknownModel
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, lease_from
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.inline import InlineFactory, InlineRuntime
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.spare import SpareTime

X = np.ones((2, 4), np.float32)
SOON = 20.0


class Waiter(NullObserver):
    """Lets a test wait for a table that it likes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.table = RoutingTable()

    def on_table(self, table: RoutingTable) -> None:
        with self.changed:
            self.table = table
            self.changed.notify_all()

    def wait_for(self, *variants: str, model: str = "tiny") -> None:
        def is_there() -> bool:
            served = self.table.models.get(model)
            return sorted(served.variants if served else []) == sorted(variants)

        with self.changed:
            assert self.changed.wait_for(is_there, SOON)


@pytest.fixture
def waiter() -> Waiter:
    return Waiter()


@pytest.fixture
def manager(repository: Path, waiter: Waiter) -> Iterator[Manager]:
    settings = ManagerSettings(repository, poll_seconds=0.02)
    manager = Manager(settings, InlineFactory(cores=1), [waiter])
    manager.start()
    assert manager.wait_until_settled(SOON)
    yield manager
    manager.stop()


def pick(variant: str) -> Any:
    return lambda table: (table.model("tiny").variant(variant), None)


def test_it_serves_what_is_there(manager: Manager) -> None:
    for variant, scale in (("baseline", 2), ("int8", 3)):
        with lease_from(lambda: manager.table, pick(variant)) as held:
            np.testing.assert_array_equal(held.runtime.run({"x": X}).outputs["y"], scale * X)
    assert manager.index() == [
        IndexEntry("tiny", "baseline", State.READY, ""),
        IndexEntry("tiny", "int8", State.READY, ""),
    ]


def test_it_follows_what_comes_and_goes(
    manager: Manager, waiter: Waiter, publish: Any, repository: Path
) -> None:
    publish("fp16", 2.0, parent="baseline")
    waiter.wait_for("baseline", "fp16", "int8")
    (repository / "tiny" / "int8").rename(repository / "tiny" / ".int8")
    waiter.wait_for("baseline", "fp16")


class Told(SpareTime):
    """Processors that have time, or have none."""

    def __init__(self, *, is_enough: bool) -> None:
        super().__init__()
        self._is_enough = is_enough

    def is_enough(self) -> bool:
        return self._is_enough


@pytest.mark.parametrize("has_time", [True, False])
def test_only_who_comes_beside_traffic_gives_way_if_there_is_time(
    repository: Path, monkeypatch: pytest.MonkeyPatch, publish: Any, *, has_time: bool
) -> None:
    asked: list[bool] = []
    factory = InlineFactory(cores=1)
    load = factory.load

    def note(path: Path, settings: SessionSettings) -> InlineRuntime:
        asked.append(settings.gives_way)
        return load(path, settings)

    monkeypatch.setattr(factory, "load", note)
    settings = ManagerSettings(repository, poll_seconds=0.02)
    manager = Manager(settings, factory, spare=Told(is_enough=has_time))
    manager.start()
    try:
        assert manager.wait_until_settled(SOON)
        publish("fp16", 2.0, parent="baseline")
        manager.load_model("tiny", SOON)
    finally:
        manager.stop()
    assert asked == [False, False, has_time]


def test_what_failed_once_does_not_give_way_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch, publish: Any
) -> None:
    """Where nothing is left to take, it would fail the same way for ever."""
    asked: SimpleQueue[bool] = SimpleQueue()
    factory = InlineFactory(cores=1)
    load = factory.load

    def fail_fp16(path: Path, settings: SessionSettings) -> InlineRuntime:
        if path.parent.name != "fp16":
            return load(path, settings)
        asked.put(settings.gives_way)
        raise LoadFailed(f"{path} was not loaded in time.")

    monkeypatch.setattr(factory, "load", fail_fp16)
    settings = ManagerSettings(repository, poll_seconds=0.02)
    manager = Manager(settings, factory, spare=Told(is_enough=True))
    manager.start()
    try:
        assert manager.wait_until_settled(SOON)
        publish("fp16", 2.0, parent="baseline")
        assert [asked.get(timeout=SOON) for _ in range(2)] == [True, False]
    finally:
        manager.stop()


def test_a_broken_variant_takes_nothing_down(manager: Manager, publish: Any) -> None:
    publish("bad", 3.0, parent="baseline", golden_scale=4.0)
    with pytest.raises(LoadFailed, match="differs from the golden sample"):
        manager.load_model("tiny", SOON)
    assert sorted(manager.table.models["tiny"].variants) == ["baseline", "int8"]
    (entry,) = [each for each in manager.index() if each.version == "bad"]
    assert entry.state is State.UNAVAILABLE


def test_unloading_lasts_until_the_model_is_loaded_again(manager: Manager) -> None:
    manager.unload_model("tiny", SOON)
    assert not manager.table.models
    with pytest.raises(UnknownModel):
        manager.unload_model("tiny", SOON)
    manager.load_model("tiny", SOON)
    assert sorted(manager.table.models["tiny"].variants) == ["baseline", "int8"]


def test_a_model_that_is_not_in_the_repository_cannot_be_loaded(manager: Manager) -> None:
    with pytest.raises(UnknownModel, match="no model 'huge'"):
        manager.load_model("huge", SOON)


def test_loading_reads_the_repository_first(repository: Path, publish: Any) -> None:
    """With an hour between polls, only the request can have found the new variant."""
    manager = Manager(ManagerSettings(repository, poll_seconds=3600, watch=False), InlineFactory(cores=1))
    manager.start()
    try:
        assert manager.wait_until_settled(SOON)
        publish("fp16", 2.0, parent="baseline")
        manager.load_model("tiny", SOON)
        assert "fp16" in manager.table.models["tiny"].variants
    finally:
        manager.stop()


def test_explicit_mode_serves_what_was_asked_for(repository: Path, publish: Any) -> None:
    publish("baseline", 2.0, model="other")
    settings = ManagerSettings(repository, poll_seconds=0.02, explicit=True)
    manager = Manager(settings, InlineFactory(cores=1))
    manager.start()
    try:
        assert manager.wait_until_settled(SOON)
        assert not manager.table.models
        manager.load_model("tiny", SOON)
        assert list(manager.table.models) == ["tiny"]
        with pytest.raises(UnknownModel):
            manager.load_model("huge", SOON)
        assert IndexEntry("other", "", State.UNKNOWN, "not loaded") in manager.index()
    finally:
        manager.stop()


def test_a_load_that_takes_too_long_goes_on(repository: Path, waiter: Waiter) -> None:
    go = threading.Event()

    def make(path: Path) -> FakeRuntime:
        assert go.wait(SOON)
        return FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0)

    manager = Manager(ManagerSettings(repository, poll_seconds=0.02), FakeFactory(make), [waiter])
    manager.start()
    try:
        assert not manager.wait_until_settled(0.05)
        with pytest.raises(DeadlineExceeded, match="was not loaded within"):
            manager.load_model("tiny", 0.05)
        go.set()
        waiter.wait_for("baseline", "int8")
    finally:
        go.set()
        manager.stop()


def test_a_repository_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    manager = Manager(ManagerSettings(tmp_path / "nowhere"), FakeFactory())
    with pytest.raises(RepositoryError, match="nowhere"):
        manager.start()
    manager.stop()


def test_stopping_waits_for_leases_and_closes_everything(repository: Path) -> None:
    made = list[LoadedVariant]()

    class Collector(NullObserver):
        def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
            made.append(loaded)

    factory = FakeFactory(lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0))
    manager = Manager(ManagerSettings(repository, poll_seconds=0.02), factory, [Collector()])
    manager.start()
    assert manager.wait_until_settled(SOON)
    baseline = next(each for each in made if each.name == "baseline")
    baseline.leases.acquire()
    stopping = threading.Thread(target=manager.stop, args=(SOON,))
    stopping.start()
    int8 = next(each for each in made if each.name == "int8")
    assert isinstance(int8.runtime, FakeRuntime)
    assert isinstance(baseline.runtime, FakeRuntime)
    assert int8.runtime.closed.wait(SOON), "what is idle does not wait for what is not"
    assert not baseline.runtime.closed.is_set()
    baseline.leases.release()
    stopping.join(SOON)
    assert baseline.runtime.closed.is_set()
    assert not manager.table.models


def test_unloading_waits_for_the_last_request(manager: Manager) -> None:
    leased = lease_from(lambda: manager.table, pick("int8"))
    with leased, pytest.raises(DeadlineExceeded, match="requests still use it"):
        manager.unload_model("tiny", 0.05)
    assert not manager.table.models


def test_whoever_waits_for_a_model_is_told_when_the_server_stops(repository: Path) -> None:
    go_on, entered = threading.Event(), threading.Event()

    def load(path: Path) -> FakeRuntime:
        entered.set()
        assert go_on.wait(SOON)
        return FakeRuntime()

    manager = Manager(ManagerSettings(repository, explicit=True), FakeFactory(load))
    manager.start()
    assert manager.wait_until_settled(SOON)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(manager.load_model, "tiny", 3600.0)
        assert entered.wait(SOON)
        manager._board.take_all_out()
        with pytest.raises(Draining, match="shutting down"):
            waiting.result(SOON)
    go_on.set()
    manager.stop()


@pytest.mark.parametrize("explicit", [True, False])
def test_of_names_that_callers_invent_nothing_is_kept(repository: Path, explicit: bool) -> None:
    manager = Manager(ManagerSettings(repository, explicit=explicit), FakeFactory(lambda _: FakeRuntime()))
    manager.start()
    try:
        for number in range(3):
            with pytest.raises(UnknownModel):
                manager.load_model(f"invented{number}", SOON)
        assert not manager._board._named
        assert not manager._board._asked_away
    finally:
        manager.stop()
