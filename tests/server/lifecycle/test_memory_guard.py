"""The memory guard: what a load needs, and what follows."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource, desire
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.memory_guard import RESERVE_BYTES, MemoryGuard, Need, need_of, refusal
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.headroom import Headroom
from flyweight.server.runtime.inline import InlineFactory

SOON = 20.0
MB = 1_000_000


def source_of(root: Path, variant: str, model: str = "tiny") -> VariantSource:
    return desire(scan_repository(root)).models[model].wanted[variant]


def test_a_manifest_says_what_a_load_needs(repository_root: Path, publish: Any) -> None:
    publish("baseline", edit=lambda manifest: setattr(manifest.footprint, "pss_bytes", 123 * MB))
    assert need_of(source_of(repository_root, "baseline")) == Need(123 * MB, "as its manifest says")


def test_without_a_manifest_the_files_say_it(repository_root: Path) -> None:
    folder = repository_root / "plain" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"0" * 2_000_000)
    (folder / "model.onnx.data").write_bytes(b"0" * 10_000_000)
    need = need_of(source_of(repository_root, "1", "plain"))
    assert need == Need(3_800_000 + 14_000_000, "by the 12 MB of its files")


def test_a_manifest_that_cannot_be_read_is_for_the_load_to_tell(repository_root: Path, publish: Any) -> None:
    (publish("baseline") / "manifest.json").write_text("{")
    assert need_of(source_of(repository_root, "baseline")).known_by.startswith("by the")


@pytest.mark.parametrize(
    ("needed", "left", "taken", "fits"),
    [
        (100 * MB, 100 * MB + RESERVE_BYTES, 0, True),
        (100 * MB, 100 * MB + RESERVE_BYTES - 1, 0, False),
        (100 * MB, 300 * MB, 200 * MB, False),
        (0, 0, 0, False),
        (0, -5 * MB, 0, False),
    ],
)
def test_what_fits_is_let_pass(needed: int, left: int, taken: int, *, fits: bool) -> None:
    reason = refusal("m/v", Need(needed, "guessed"), Headroom(left, 400 * MB, "the cgroup"), taken)
    assert (reason == "") == fits


def test_where_nothing_is_known_everything_fits() -> None:
    assert refusal("m/v", Need(1 << 60, "guessed"), None) == ""


def test_a_refusal_says_all_numbers_in_one_sentence() -> None:
    reason = refusal("m/v", Need(250 * MB, "as its manifest says"), Headroom(90 * MB, 512 * MB, "the cgroup"))
    assert reason == (
        "m/v needs about 250 MB of memory (as its manifest says), and of the 512 MB of the cgroup only 90 MB "
        "are left, 34 MB of which stay free for requests; unload something, give the server more memory, or "
        "start it with --no-memory-guard."
    )


@pytest.fixture
def large(repository_root: Path, publish: Any) -> Callable[[str, int], VariantSource]:
    def make(model: str, megabytes: int) -> VariantSource:
        publish(
            "baseline",
            model=model,
            edit=lambda manifest: setattr(manifest.footprint, "pss_bytes", megabytes * MB),
        )
        return source_of(repository_root, "baseline", model)

    return make


def test_a_load_that_fits_alone_waits_for_those_in_progress(large: Any) -> None:
    guard = MemoryGuard(lambda: Headroom(150 * MB, 200 * MB, "the cgroup"))
    one, other = large("one", 100), large("other", 90)
    admitted = threading.Event()

    def load() -> None:
        with guard.admit(other):
            admitted.set()

    waiting = threading.Thread(target=load)
    with guard.admit(one):
        waiting.start()
        assert not admitted.wait(0.05)
    assert admitted.wait(SOON)
    waiting.join(SOON)


def test_a_load_that_does_not_even_fit_alone_waits_for_nobody(large: Any) -> None:
    guard = MemoryGuard(lambda: Headroom(150 * MB, 200 * MB, "the cgroup"))
    with (
        guard.admit(large("one", 100)),
        pytest.raises(LoadFailed, match="other/baseline needs about 900 MB"),
        guard.admit(large("other", 900)),
    ):
        pytest.fail("it was let pass")


def test_a_load_that_failed_takes_nothing_any_more(large: Any) -> None:
    guard = MemoryGuard(lambda: Headroom(150 * MB, 200 * MB, "the cgroup"))
    with pytest.raises(ZeroDivisionError), guard.admit(large("one", 100)):
        raise ZeroDivisionError
    with guard.admit(large("other", 110)):
        pass


def manage(root: Path, **settings: Any) -> Manager:
    manager = Manager(ManagerSettings(root, poll_seconds=0.02, **settings), InlineFactory(cores=1))
    manager.start()
    return manager


def test_a_real_load_over_a_tiny_limit_is_refused_and_told(repository: Path) -> None:
    manager = manage(repository, memory_limit_bytes=8 << 20)
    try:
        assert manager.wait_until_settled(SOON)
        assert not manager.table.models
        for entry in manager.index():
            assert entry.state.value == "UNAVAILABLE"
            assert "of the 8 MB of --memory-limit-megabytes only 0 MB are left" in entry.reason
        with pytest.raises(LoadFailed, match="needs about"):
            manager.load_model("tiny", SOON)
    finally:
        manager.stop()


def test_the_guard_can_be_switched_off(repository: Path) -> None:
    manager = manage(repository, memory_limit_bytes=8 << 20, memory_guard=False)
    try:
        assert manager.wait_until_settled(SOON)
        assert sorted(manager.table.models["tiny"].variants) == ["baseline", "int8"]
    finally:
        manager.stop()


def test_a_refused_load_is_tried_again_when_there_is_room(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [0]
    monkeypatch.setattr(
        "flyweight.server.lifecycle.manager.read_headroom",
        lambda _: Headroom(left[0], 1000 * MB, "the cgroup"),
    )
    factory = FakeFactory(lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0))
    manager = Manager(ManagerSettings(repository, poll_seconds=0.02), factory)
    manager.start()
    try:
        assert manager.wait_until_settled(SOON)
        assert not manager.table.models
        left[0] = 500 * MB
        assert manager._board.wait_for(lambda: len(manager.table.models) == 1, SOON)
    finally:
        manager.stop()
