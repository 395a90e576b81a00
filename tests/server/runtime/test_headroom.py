"""How much memory is left, by files as the kernel writes them."""

from pathlib import Path

import pytest

from flyweight.server.runtime.headroom import Headroom, free_bytes, read_headroom

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


def v2(folder: Path, limit: str, used: int, inactive: int = 0, active: int = 0, **others: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon 1\ninactive_file {inactive}\nactive_file {active}\n"
        + "".join(f"{name} {value}\n" for name, value in others.items())
    )


def v1(folder: Path, limit: str, used: int, inactive: int = 0, active: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"cache 1\ninactive_file 3\ntotal_mapped_file 0\ntotal_inactive_file {inactive}\n"
        f"total_active_file {active}\n"
    )


def test_a_cgroup_of_version_2_counts_idle_page_cache_as_free(proc: Path, tmp_path: Path) -> None:
    v2(tmp_path / "cgroup" / "pods" / "mine", str(500 * MB), 400 * MB, 150 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(250 * MB, 500 * MB, "the cgroup")


def test_page_cache_that_was_used_twice_is_free_too_unless_it_is_mapped(proc: Path, tmp_path: Path) -> None:
    """A published model is read for its digests, and again for its session; mapped weights are in use."""
    folder = tmp_path / "cgroup" / "pods" / "mine"
    v2(folder, str(500 * MB), 400 * MB, inactive=50 * MB, active=200 * MB, file_mapped=80 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(270 * MB, 500 * MB, "the cgroup")
    # Weights that were just mapped count among the idle, and are in use.
    v2(folder, str(500 * MB), 400 * MB, inactive=80 * MB, file_mapped=80 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(100 * MB, 500 * MB, "the cgroup")
    # Shared memory that is mapped is in neither list.
    v2(folder, str(500 * MB), 400 * MB, inactive=80 * MB, file_mapped=80 * MB, shmem=60 * MB)
    assert read_headroom(0, proc, tmp_path / "cgroup") == Headroom(160 * MB, 500 * MB, "the cgroup")


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
    v1(tmp_path / "cgroup" / "memory" / "mine", str(500 * MB), 400 * MB, inactive=20 * MB, active=30 * MB)
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


def test_what_is_free_is_never_negative() -> None:
    free, limited = free_bytes(), free_bytes(1)
    assert free is not None
    assert free > 0
    assert limited == 0
