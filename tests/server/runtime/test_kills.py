"""What the kernel ended for want of memory, by files as it writes them."""

from pathlib import Path

import pytest

from flyweight.server.runtime.kills import KillWatch, count_kills


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path / "proc"


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/mine", "mine/memory.events"),
        # The container's own mount, where the path is the host's.
        ("0::/host/mine", "memory.events"),
        ("4:memory:/mine", "memory/mine/memory.oom_control"),
    ],
)
def test_kills_are_counted_in_both_versions(proc: Path, tmp_path: Path, line: str, file: str) -> None:
    (proc / "self" / "cgroup").write_text(f"3:cpu:/x\n{line}\n")
    path = tmp_path / "cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text("oom 7\noom_kill 3\n")
    assert count_kills(proc, tmp_path / "cgroup") == 3


def test_where_nothing_tells_none_are_counted(proc: Path, tmp_path: Path) -> None:
    assert count_kills(proc, tmp_path / "cgroup") == 0
    (proc / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "memory.events").write_text("nonsense\n")
    assert count_kills(proc, tmp_path / "cgroup") == 0


def test_each_kill_is_told_once() -> None:
    counts = iter([5, 5, 7, 7, 7])
    watch = KillWatch(lambda: next(counts))
    assert [watch.has_killed() for _ in range(4)] == [False, True, True, False]
