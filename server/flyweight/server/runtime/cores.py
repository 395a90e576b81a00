"""How many cores this process may use: the smaller of its affinity mask and its cgroup's CPU quota.

`os.cpu_count` sees the machine; a container that was given two cores of 64 would start 64 threads.
"""

import math
import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Return the number of cores, at least 1; a quota of 1.5 cores counts as 2.

    Args:
        cgroup: where this process's cgroup is mounted, as a container sees it (v2, or v1 with a cpu folder).
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _quota_v2(path: Path) -> float | None:
    """Read "QUOTA PERIOD" in microseconds, where QUOTA may be "max" (Linux, admin-guide/cgroup-v2)."""
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Read the two files of cgroup v1, where a quota of -1 means none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
