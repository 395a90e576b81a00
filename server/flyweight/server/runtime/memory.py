"""A process's memory and processor time as the kernel counts them, and giving freed memory back to it."""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PROCESS: Final = Path("/proc/self")
_KIBIBYTE: Final = 1024
_PRIVATE: Final = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
# In /proc/<pid>/stat after the name's closing parenthesis: utime and stime are fields 14 and 15 (proc(5)).
_FIRST_FIELD_AFTER_NAME: Final = 3
_UTIME: Final = 14
_STIME: Final = 15
# malloc.h of glibc.
_M_ARENA_MAX: Final = -8


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment, in bytes.

    Attributes:
        pss_bytes: proportional set size: pages that processes share count by their share.
        uss_bytes: unique set size: what the kernel gets back when the process ends.
        anonymous_bytes: pages that are of no file: heap, stacks, arenas.
        resident_bytes: resident set size: shared pages count whole.
        peak_resident_bytes: the most that was resident since the process began, or since `reset_peak`.
    """

    pss_bytes: int
    uss_bytes: int
    anonymous_bytes: int
    resident_bytes: int
    peak_resident_bytes: int


def process_folder(pid: int) -> Path:
    """Return where /proc tells of a process."""
    return Path(f"/proc/{pid}")


def read_held(process: Path = PROCESS) -> Held | None:
    """Return what a process holds; None when it is gone or the kernel does not tell.

    Costs 0.3 to 10 ms: the kernel walks the page table, whose lock the process's page faults wait for.
    """
    rollup = read_fields(process / "smaps_rollup")
    status = read_fields(process / "status")
    if "Pss" not in rollup:
        return None
    return Held(
        pss_bytes=rollup["Pss"],
        uss_bytes=sum(rollup.get(name, 0) for name in _PRIVATE),
        anonymous_bytes=rollup.get("Anonymous", 0),
        resident_bytes=rollup.get("Rss", 0),
        peak_resident_bytes=status.get("VmHWM", 0),
    )


def read_pss_bytes(process: Path = PROCESS) -> int:
    """Return the proportional set size of a process; 0 where the kernel does not tell."""
    return read_fields(process / "smaps_rollup").get("Pss", 0)


def read_cpu_seconds(process: Path = PROCESS) -> float | None:
    """Return the processor time of a process and its threads, user and system; None when it is gone."""
    try:
        text = (process / "stat").read_text()
        # The name may hold anything, spaces and parentheses included; the last parenthesis ends it.
        fields = text.rpartition(")")[2].split()
        ticks = sum(int(fields[field - _FIRST_FIELD_AFTER_NAME]) for field in (_UTIME, _STIME))
    except (OSError, ValueError, IndexError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")


def read_fields(path: Path) -> dict[str, int]:
    """Return the lines "Name:  123 kB" of a file in /proc, in bytes; nothing when it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {
        line[0].rstrip(":"): int(line[1]) * _KIBIBYTE for line in words if len(line) == 3 and line[2] == "kB"
    }


def reset_peak() -> bool:
    """Let this process's peak begin anew, at what is resident now (proc(5), clear_refs); tell if it did.

    The peak is of the whole process: only one whose peak nobody else tells may do this.
    """
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def trim_heap() -> None:
    """Give the allocator's free pages back to the kernel (malloc_trim(3)); glibc keeps them otherwise.

    Of a deleted session's 109 to 344 MB all but 9 MB went back this way, and almost nothing without it. A
    session that was just built leaves as much: a convnet of 47 MB held 146 MB before and 48 after.
    """
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def keep_one_heap() -> None:
    """Have all threads share one heap (mallopt(3), M_ARENA_MAX); for a process to do before it has threads.

    glibc gives threads heaps of their own, of which `trim_heap` does not give back the end: a server whose
    models come and go kept up to 50 MB, now more and now less. Trimming at every `free` (M_TRIM_THRESHOLD)
    would give it back too, and made requests of 600 KB two to five times as expensive; one heap costs
    nothing that could be measured, for whoever allocates in Python holds the interpreter's lock. Whoever set
    MALLOC_ARENA_MAX knows better.
    """
    libc = _libc()
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
