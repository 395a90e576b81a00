"""The memory guard: what is left by cgroup, machine and operator, what a load needs, and what follows."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource, desire
from flyweight.server.lifecycle.headroom import Headroom, read_headroom
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.memory_guard import RESERVE_BYTES, MemoryGuard, Need, need_of, refusal
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.inline import InlineFactory

SOON = 20.0
MB = 1_000_000
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a /proc of a machine with 64 GB, of which 10 GB are available."""
    proc = tmp_path / "proc"
    (proc / "self" / "task" / "1").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: 10000000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/pods/mine\n")
    return proc


def v2(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 7\n")


def v1(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 1\ninactive_file 3\ntotal_inactive_file {inactive}\n")


def test_a_cgroup_of_version_2_counts_idle_page_cache_as_free(proc: Path, tmp_path: Path) -> None:
    v2(tmp_path / "cgroup" / "pods" / "mine", str(500 * MB), 400 * MB, 150 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(250 * MB, 500 * MB, "the cgroup")


def test_the_tightest_of_all_cgroups_above_counts(proc: Path, tmp_path: Path) -> None:
    v2(tmp_path / "cgroup" / "pods" / "mine", "max", 10 * MB)
    v2(tmp_path / "cgroup" / "pods", str(300 * MB), 290 * MB)
    v2(tmp_path / "cgroup", str(900 * MB), 300 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(10 * MB, 300 * MB, "the cgroup")


def test_a_container_that_sees_only_its_own_mount_is_limited_by_it(proc: Path, tmp_path: Path) -> None:
    v2(tmp_path / "cgroup", str(300 * MB), 100 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(200 * MB, 300 * MB, "the cgroup")


def test_a_cgroup_of_version_1_is_read_too(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("8:pids:/\n4:memory:/mine\n3:cpu,cpuacct:/x\n0::/\n")
    v1(tmp_path / "cgroup" / "memory" / "mine", str(500 * MB), 400 * MB, 50 * MB)
    v1(tmp_path / "cgroup" / "memory", NO_LIMIT_V1, 400 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(150 * MB, 500 * MB, "the cgroup")


@pytest.mark.parametrize("limit", ["max", NO_LIMIT_V1, "", "nonsense"])
def test_without_a_limit_the_machine_counts(proc: Path, tmp_path: Path, limit: str) -> None:
    v2(tmp_path / "cgroup" / "pods" / "mine", limit, 1)
    found = read_headroom(0, proc, tmp_path / "cgroup")
    assert found == Headroom(10_000_000 * 1024, 64_000_000 * 1024, "this machine")


def test_where_nothing_tells_nothing_is_known(tmp_path: Path) -> None:
    assert read_headroom(0, tmp_path / "none", tmp_path / "none") is None


def test_the_operators_limit_is_for_the_process_and_all_it_started(proc: Path, tmp_path: Path) -> None:
    def process(name: str, pss_kb: int, children: str) -> None:
        (proc / name / "task" / "1").mkdir(parents=True, exist_ok=True)
        (proc / name / "task" / "1" / "children").write_text(children)
        (proc / name / "smaps_rollup").write_text(f"Rss: 1 kB\nPss: {pss_kb} kB\n")

    process("self", 1000, "71 72 ")
    process("71", 2000, "73")
    process("72", 3000, "")
    process("73", 4000, "99")
    found = read_headroom(20_000 * 1024, proc, tmp_path / "none")
    assert found == Headroom(10_000 * 1024, 20_000 * 1024, "--memory-limit-megabytes")


def test_this_machine_tells_something() -> None:
    found = read_headroom()
    assert found is not None
    assert 0 < found.left_bytes <= found.limit_bytes


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
        assert manager._wait(lambda: len(manager.table.models) == 1, SOON)
    finally:
        manager.stop()
