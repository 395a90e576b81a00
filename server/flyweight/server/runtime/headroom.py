"""How much memory is left to this process, by whoever limits it: its cgroup, the machine, or the operator.

Page cache counts as free, for the kernel drops it before it kills; but not files that are mapped: they are in
use.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from flyweight.server.runtime.memory import read_fields, read_pss_bytes

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")

# cgroup v1 writes "no limit" as the largest multiple of a page that fits; no machine has an eighth of that.
_NO_LIMIT_BYTES: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Headroom:
    """Bytes that are left, of how many, by whose word: a name for the middle of a sentence."""

    left_bytes: int
    limit_bytes: int
    limited_by: str


class MemoryFiles(NamedTuple):
    """What a version of cgroups calls its files, and in memory.stat the kinds of page cache."""

    limit: str
    usage: str
    inactive: str
    active: str
    mapped: str
    shared: str
    events: str


_V2: Final = MemoryFiles(
    "memory.max", "memory.current", "inactive_file", "active_file", "file_mapped", "shmem", "memory.events"
)
_V1: Final = MemoryFiles(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
    "total_active_file",
    "total_mapped_file",
    "total_shmem",
    "memory.oom_control",
)


def read_headroom(limit_bytes: int = 0, proc: Path = _PROC, cgroup: Path = _CGROUP) -> Headroom | None:
    """Return the tightest headroom; None where nothing tells.

    Args:
        limit_bytes: the operator's word, for this process and its children together, in the place of what
            cgroup and machine say; 0 asks those.
        proc: where procfs is mounted.
        cgroup: where cgroups are mounted: v2, or v1 with a folder for each controller.
    """
    if limit_bytes:
        used_bytes = sum(read_pss_bytes(process) for process in _family(proc))
        return Headroom(limit_bytes - used_bytes, limit_bytes, "--memory-limit-megabytes")
    found = [*_cgroup_headrooms(proc, cgroup), *_machine_headroom(proc)]
    return min(found, key=lambda headroom: headroom.left_bytes) if found else None


def free_bytes(limit_bytes: int = 0) -> int | None:
    """Return the bytes that are left; None where nothing tells. The argument is that of `read_headroom`."""
    headroom = read_headroom(limit_bytes)
    return None if headroom is None else max(0, headroom.left_bytes)


def _machine_headroom(proc: Path) -> Iterator[Headroom]:
    fields = read_fields(proc / "meminfo")
    if "MemAvailable" in fields:
        yield Headroom(fields["MemAvailable"], fields.get("MemTotal", 0), "this machine")


def _cgroup_headrooms(proc: Path, cgroup: Path) -> Iterator[Headroom]:
    """Return the headroom of this process's cgroup and of every one above it that has a limit."""
    for folder, names in memory_cgroups(proc, cgroup):
        yield from _read_limit(folder, names)


def memory_cgroups(proc: Path = _PROC, cgroup: Path = _CGROUP) -> Iterator[tuple[Path, MemoryFiles]]:
    """Return where this process's memory is limited, its own cgroup first, then those above it.

    In a container the path may be the host's, and some of the folders not there.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            mount, files = cgroup, _V2
        elif "memory" in controllers.split(","):
            mount, files = cgroup / "memory", _V1
        else:
            continue
        for folder in _folders(mount, path):
            yield folder, files


def _folders(mount: Path, path: str) -> Iterator[Path]:
    """Return a cgroup's folder and those above it."""
    inner = PurePosixPath(path.lstrip("/"))
    for relative in (inner, *inner.parents):
        yield mount / relative


def _read_limit(folder: Path, names: MemoryFiles) -> Iterator[Headroom]:
    try:
        limit_text = (folder / names.limit).read_text().strip()
        used_bytes = int((folder / names.usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        kinds = (names.inactive, names.active, names.mapped, names.shared)
        inactive, active, mapped, shared = (int(statistics.get(name, 0)) for name in kinds)
        limit_bytes = _NO_LIMIT_BYTES if limit_text == "max" else int(limit_text)
    except (OSError, ValueError):
        return
    if limit_bytes < _NO_LIMIT_BYTES:
        # A file that was read twice, for its digest and for its session, is active, and given up all the
        # same. What is mapped is in use: weights beside a model are read again in every run. Shared memory
        # may be mapped, and is in neither list.
        cached_bytes = max(0, inactive + active - max(0, mapped - shared))
        yield Headroom(limit_bytes - max(0, used_bytes - cached_bytes), limit_bytes, "the cgroup")


def _family(proc: Path) -> Iterator[Path]:
    """Return this process and everything it started, which holds the sessions where they run elsewhere."""
    waiting = [proc / "self"]
    while waiting:
        process = waiting.pop()
        yield process
        for task in _tasks(process):
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            waiting += [proc / child for child in children]


def _tasks(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:
        return []
