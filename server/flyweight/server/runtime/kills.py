"""Processes that the kernel ends for want of memory: whom it takes first, and how many the cgroup counted."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from flyweight.server.runtime.headroom import memory_cgroups

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")

# In thousandths of the memory that is limited: a server would have to hold that much more than a worker to be
# taken in its place. Not the most there is (1000), at which a worker would be the first of the whole machine.
SCORE_ABOVE_SERVER: Final = 300
_HIGHEST_SCORE: Final = 1000


def be_taken_first() -> None:
    """Have the kernel end this process before the one that started it (proc(5), oom_score_adj).

    A worker's death costs a variant a second, the server's death everything.
    """
    path = _PROC / "self" / "oom_score_adj"
    with suppress(OSError, ValueError):
        score = int(path.read_text()) + SCORE_ABOVE_SERVER
        path.write_text(str(min(score, _HIGHEST_SCORE)))


def count_kills(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Return how many processes of this one's cgroup were ended so; 0 where nothing tells.

    The kernel counts before it kills: whoever sees a process dead sees it counted.
    """
    for folder, files in memory_cgroups(proc, cgroup):
        count = _read(folder / files.events)
        if count is not None:
            return count
    return 0


class KillWatch:
    """Tells of kills, one at a time. Used by one thread."""

    def __init__(self, count: Callable[[], int] = count_kills) -> None:
        self._count = count
        self._told = count()

    def has_killed(self) -> bool:
        """Tell whether the kernel ended a process of this cgroup of which this did not tell yet."""
        if self._count() <= self._told:
            return False
        self._told += 1
        return True


def _read(path: Path) -> int | None:
    """Return the line "oom_kill 3" of memory.events (cgroup v2) or memory.oom_control (v1)."""
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
