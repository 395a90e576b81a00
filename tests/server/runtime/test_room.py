from pathlib import Path

import pytest

from flyweight.server.runtime.room import free_memory_bytes

MEGABYTE = 1 << 20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """Return a machine with 100 MB left."""
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 1 kB\nMemAvailable: {100 * 1024} kB\n")
    return path


def write_v2(folder: Path, limit: str, used: int, droppable: int) -> Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\n")
    return folder


def test_a_machine_without_cgroups_has_what_it_has(tmp_path: Path, meminfo: Path) -> None:
    assert free_memory_bytes(tmp_path / "nothing", meminfo) == 100 * MEGABYTE


def test_a_cgroup_leaves_its_limit_less_what_cannot_be_dropped(tmp_path: Path, meminfo: Path) -> None:
    cgroup = write_v2(tmp_path / "cgroup", str(50 * MEGABYTE), 40 * MEGABYTE, 5 * MEGABYTE)
    assert free_memory_bytes(cgroup, meminfo) == 15 * MEGABYTE


def test_a_cgroup_cannot_have_more_than_the_machine(tmp_path: Path, meminfo: Path) -> None:
    cgroup = write_v2(tmp_path / "cgroup", str(500 * MEGABYTE), 0, 0)
    assert free_memory_bytes(cgroup, meminfo) == 100 * MEGABYTE


def test_a_cgroup_without_a_limit_is_none(tmp_path: Path, meminfo: Path) -> None:
    cgroup = write_v2(tmp_path / "cgroup", "max", 40 * MEGABYTE, 0)
    assert free_memory_bytes(cgroup, meminfo) == 100 * MEGABYTE


def test_a_full_cgroup_has_nothing_left(tmp_path: Path, meminfo: Path) -> None:
    cgroup = write_v2(tmp_path / "cgroup", str(MEGABYTE), 2 * MEGABYTE, 0)
    assert free_memory_bytes(cgroup, meminfo) == 0


def test_the_first_version_of_cgroups_is_read_too(tmp_path: Path, meminfo: Path) -> None:
    folder = tmp_path / "cgroup" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(50 * MEGABYTE))
    (folder / "memory.usage_in_bytes").write_text(str(40 * MEGABYTE))
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {2 * MEGABYTE}\n")
    assert free_memory_bytes(tmp_path / "cgroup", meminfo) == 12 * MEGABYTE


def test_nobody_knows_where_nothing_is_told(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path / "cgroup", tmp_path / "meminfo") is None
