"""Starts a server for the suite, and starts it again when a case has killed it."""

import os
import selectors
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_PATIENCE_SECONDS: Final = 60


class Host(Protocol):
    """Something that runs one server at a time."""

    def start(self) -> str:
        """Start the server, after ending the one before, and return its address."""

    def stop(self) -> None:
        """End the server and whatever it started."""


class CommandHost:
    """Runs any command line, in a session of its own, whose server listens at an address known before."""

    def __init__(self, command: str, address: str, log: Path) -> None:
        self._command, self._address, self._log = shlex.split(command), address, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start the command; the server may need longer, which its first call waits for."""
        self.stop()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        return self._address

    def stop(self) -> None:
        """Kill the session: a server that was abused may not listen to anything gentler."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE_SECONDS)
            self._process = None


def flyweight_transport() -> str:
    """Return what will speak gRPC in `flyweight serve`, by the environment that it is started with."""
    return os.environ.get("FLYWEIGHT_SERVE_TRANSPORT", "wire")


def flyweight_options(folder: Path) -> tuple[str, ...]:
    """Return the options that switch on what is off by default and has cases here."""
    traces = folder / "traces"
    traces.mkdir()
    return ("--shared-memory", "--trace-folder", str(traces))


class FlyweightHost:
    """Runs `flyweight serve` over a repository of the suite's models, on any free port."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self._repository, self._log, self._options = folder / "repository", folder / "server.log", options
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start the server and return its address once it is ready."""
        from oip.repository import write_onnx_repository

        self.stop()
        if not self._repository.exists():
            write_onnx_repository(self._repository)
        command = Path(sys.executable).with_name("flyweight")
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [command, "serve", self._repository, *self._options, "--port", "0", "--metrics-port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(_PATIENCE_SECONDS), self._log.read_text()
        words = dict(word.split("=", 1) for word in self._process.stdout.readline().split() if "=" in word)
        assert "grpc" in words, self._log.read_text()
        return words["grpc"]

    def stop(self) -> None:
        """Kill the server and its workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE_SECONDS)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
