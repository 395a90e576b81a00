"""How much memory is left: what the machine has, and what the cgroup allows, whichever is less."""

from pathlib import Path
from typing import Final

from flyweight.server.runtime.memory import read_fields

_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")


def free_memory_bytes(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Return the bytes that can still be taken; None where neither the kernel nor the cgroup tells.

    Files that the kernel keeps in memory and can drop at once do not count as taken.

    Args:
        cgroup: this process's cgroup as a container sees it (v2, or v1 with a memory folder).
        meminfo: the machine's figures.
    """
    machine = read_fields(meminfo).get("MemAvailable")
    allowed = _left_in(cgroup, "memory.max", "memory.current", "inactive_file")
    if allowed is None:
        v1 = cgroup / "memory"
        allowed = _left_in(v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    known = [left for left in (machine, allowed) if left is not None]
    return min(known) if known else None


def _left_in(folder: Path, limit_file: str, used_file: str, droppable: str) -> int | None:
    """Return what a cgroup has left (Linux, admin-guide/cgroup-v2, cgroup-v1/memory); None for no limit."""
    try:
        # "max" means none.
        limit = int((folder / limit_file).read_text())
        used = int((folder / used_file).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    stat = dict(line.split(" ", 1) for line in lines if " " in line)
    return max(0, limit - used + int(stat.get(droppable, "0")))
