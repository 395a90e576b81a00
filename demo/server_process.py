"""The real server as its own process: started, waited for, and stopped whatever happens."""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.errors import DemoError

# Loading takes moments; a machine under load gets a minute before we call it hung.
_SECONDS_TO_READY: Final = 60.0
# Longer than the server's own patience with requests in flight.
_SECONDS_TO_STOP: Final = 15.0
_DRAIN_SECONDS: Final = 10
_READY: Final = re.compile(r"flyweight ready grpc=(?P<grpc>\S+) metrics=(?P<metrics>\S+)")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that said it is ready: where it answers, and its process."""

    address: str
    metrics_url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raise when the server has ended.

        Raises:
            DemoError: it has.
        """
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"The server ended with {code} while it was needed; its log is {self.log}.")


def command_for(repository: Path) -> list[str]:
    """Return the command that serves a repository on free ports of the loopback interface."""
    program = Path(sys.executable).with_name("flyweight")
    options = ["--port", "0", "--metrics-port", "0", "--threads", "1", "--drain-seconds", str(_DRAIN_SECONDS)]
    return [str(program), "serve", str(repository), *options]


@contextmanager
def serving(command: Sequence[str], log: Path) -> Iterator[RunningServer]:
    """Run the server until the block ends.

    The process has a session of its own, so that Ctrl-C reaches us and we end it in order, and ends by itself
    when we are killed.

    Raises:
        DemoError: it did not say that it is ready in time.
    """
    guarded = [sys.executable, "-m", "demo.deathwatch", str(os.getpid()), *command]
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603  # our own programs
            guarded, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            line = _first_line(process, time.monotonic() + _SECONDS_TO_READY)
            yield _parsed(line, process, log)
        finally:
            stop(process)


def _parsed(line: str, process: "subprocess.Popen[bytes]", log: Path) -> RunningServer:
    ready = _READY.match(line)
    if ready is None:
        said = _last_line(log) or line or "it said nothing"
        raise DemoError(f"The server did not become ready ({said}); its log is {log}.")
    return RunningServer(ready["grpc"], ready["metrics"], process, log)


def _first_line(process: "subprocess.Popen[bytes]", deadline: float) -> str:
    """Return the first line of standard output, or what there is of it at the deadline or the end."""
    assert process.stdout is not None, "it was asked for"
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in said:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                break
            piece = os.read(process.stdout.fileno(), 4096)
            if not piece:
                break
            said += piece
    return said.split(b"\n")[0].decode(errors="replace")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process in order, or by force when it does not listen, and close its pipe."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
