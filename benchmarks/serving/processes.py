"""Servers as processes: started on chosen processors, measured with whatever they start, and ended with it.

A server is told from others by an entry of its environment, which everything that it starts inherits, also
what leaves its group or its session.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MARK: Final = "FLYWEIGHT_BENCHMARK_SERVER"
_END_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.02
_MEGABYTE: Final = 1e6
# include/linux/posix-timers.h: the clock of a whole process, as its scheduler counts it, in nanoseconds.
_CPUCLOCK_SCHED: Final = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server and whatever it started hold, in megabytes: RSS counts shared pages in each process."""

    rss_megabytes: float
    pss_megabytes: float


class Process:
    """A server that runs. Its maker ends it."""

    def __init__(self, command: Sequence[str | Path], log: Path, extra: dict[str, str] | None = None) -> None:
        """Start a server; its output goes to `log`."""
        self._mark = uuid.uuid4().hex
        self.log = log
        environment = os.environ | {"PYTHONUNBUFFERED": "1", _MARK: self._mark} | (extra or {})
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                # Not a session of its own: the kernel shares processors out between sessions first, and this
                # one may have been given more than others.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Return the number of the process that was started."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Tell whether the process that was started is gone."""
        return self._process.poll() is not None

    def members(self) -> list[int]:
        """Return the numbers of the server's processes."""
        wanted = f"{_MARK}={self._mark}".encode()
        return [pid for pid in _all_pids() if wanted in _environment(pid)]

    def cpu_seconds(self) -> float:
        """Return the processor time that the server's processes have used."""
        return sum(cpu_seconds(pid) for pid in self.members())

    def memory(self) -> Memory:
        """Return what the server's processes hold."""
        found = [_memory(pid) for pid in self.members()]
        return Memory(sum(rss for rss, _ in found) / _MEGABYTE, sum(pss for _, pss in found) / _MEGABYTE)

    def terminate(self) -> None:
        """Ask the process that was started to end (SIGTERM)."""
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        """Return the exit status of the process that was started.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(seconds)

    def end(self) -> None:
        """End the server and whatever it started."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        until = time.monotonic() + _END_SECONDS
        while (left := self.members()) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            time.sleep(_LOOK_SECONDS)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of one process; 0 when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


@contextmanager
def on_processors(numbers: Collection[int]) -> Iterator[None]:
    """Keep this thread, and whatever it starts meanwhile, on some processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end_servers_on_sigterm() -> None:
    """Have SIGTERM unwind this process, as Ctrl-C does, so that whoever started servers ends them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Tell whether somebody on this machine listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  # names, not files


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _memory(pid: int) -> tuple[int, int]:
    """Return a process's RSS and PSS in bytes; zeros when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields.get("Rss:", 0), fields.get("Pss:", 0)
