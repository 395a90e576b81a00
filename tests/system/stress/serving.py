"""A real server whose process is looked at and interfered with."""

import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0
COMMAND = Path(sys.executable).with_name("flyweight")
READY = re.compile(r"flyweight ready grpc=(\S+) metrics=(\S+) ")


@dataclass
class Served:
    """A server that runs, where it is reached, and what /proc says of it."""

    process: "subprocess.Popen[str]"
    log: Path
    repository: Path
    address: str
    metrics: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def host_and_port(self) -> tuple[str, int]:
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def scrape(self) -> dict[str, float]:
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE_SECONDS) as reply:
            lines = reply.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def total(self, start: str, *parts: str) -> float:
        """Return the sum of the samples whose name starts so, and has all of the parts in its labels."""
        return sum(
            value
            for name, value in self.scrape().items()
            if name.startswith(start) and all(part in name for part in parts)
        )

    def await_ready(self, model: str, variant: str) -> None:
        """Wait until a variant is served."""
        name = f'flyweight_variant_ready{{model="{model}",variant="{variant}"}}'
        eventually(
            lambda: self.scrape().get(name, 0), lambda ready: ready == 1, f"{model}/{variant} is served"
        )

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 -- a Path opens one itself

    def resident_bytes(self) -> int:
        return self._status("VmRSS")

    def address_space_bytes(self) -> int:
        return self._status("VmSize")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0]) * 1024
        raise AssertionError(f"/proc/{self.pid}/status has no {key}; is the server gone?")

    def workers(self) -> list[int]:
        """Return the numbers of its worker processes."""
        pids = [
            int(child)
            for path in Path(f"/proc/{self.pid}/task").glob("*/children")
            for child in path.read_text().split()
        ]
        return [pid for pid in pids if b"process.entry" in _command_line(pid)]

    def limit(self, what: int, soft: int) -> None:
        """Set a soft limit of the running process (prlimit(2))."""
        _, hard = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (soft, hard))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def tracebacks(self) -> list[str]:
        """Return the lines of the log that no server should ever write."""
        bad = ("Traceback", "internal error", "Fatal", "Exception ignored")
        return [line for line in self.log.read_text().splitlines() if any(word in line for word in bad)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def serving(
    repository: Path,
    *options: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Served]:
    """Run a server over a repository, with its log in `folder`; it is killed if it is still there at the end.

    `wrapper` is a command that the server's is given to.
    """
    number = len(list(folder.glob("served-*.log")))
    log = folder / f"served-{number}.log"
    ports = ("--port", "0", "--metrics-port", "0", "--poll-seconds", "0.05")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*wrapper, str(COMMAND), "serve", str(repository), *ports, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
        )
    try:
        yield _await_ready(process, log, repository)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def _await_ready(process: "subprocess.Popen[str]", log: Path, repository: Path) -> Served:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(PATIENCE_SECONDS), log.read_text()
    found = READY.match(process.stdout.readline())
    assert found is not None, log.read_text()
    return Served(process, log, repository, found[1], found[2])


def eventually(look: Callable[[], Any], is_there: Callable[[Any], bool], what: str = "") -> Any:
    """Look again and again until `is_there` holds of what is seen, and return that."""
    pause = threading.Event()
    seen: Any = None
    for _ in range(int(PATIENCE_SECONDS * 20)):
        seen = look()
        if is_there(seen):
            return seen
        pause.wait(0.05)
    raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what}; last seen: {seen}")
