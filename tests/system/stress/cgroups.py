"""A control group of its own for a process, with a limit of memory that the kernel enforces."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.stress.serving import eventually

MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Limited:
    """A control group: where it is, and what its memory's limit is called, which is another in version 1."""

    folder: Path
    limit_bytes: int

    @property
    def wrapper(self) -> tuple[str, ...]:
        """Return what a command is given to, to run in it with the number of the process that began it."""
        return ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder))

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel ended for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            path = self.folder / name
            if path.exists():
                counts = dict(line.split() for line in path.read_text().splitlines())
                return int(counts["oom_kill"])
        raise AssertionError(f"{self.folder} does not tell of kills")


@contextmanager
def limited(limit_bytes: int) -> Iterator[Limited]:
    """Make a control group below this process's own for a `with` block, or skip the test."""
    folder = None
    try:
        folder, limit_file = _make()
        (folder / limit_file).write_text(str(limit_bytes))
    except OSError as error:
        if folder is not None:
            folder.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here ({error.strerror})")
    try:
        yield Limited(folder, limit_bytes)
    finally:
        # A killed process is in it until it is reaped, its workers until somebody else reaps them.
        eventually(lambda: _remove(folder), lambda gone: gone is True, f"{folder} is empty")


def _make() -> tuple[Path, str]:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            above, limit = MOUNT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
            break
    else:
        path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::")), "")
        above, limit = MOUNT / path, "memory.max"
    folder = above / f"flyweight-test-{os.getpid()}"
    folder.mkdir()
    if not (folder / limit).exists():
        folder.rmdir()
        raise OSError(errno.ENOTSUP, "the memory controller is not handed down to it")
    return folder, limit


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
