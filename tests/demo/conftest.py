import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
Start = Callable[[Path], "contextmanager[subprocess.Popen[str]]"]


@contextmanager
def _started(out: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "demo", "--quick", "--out", str(out)]
    # A shell lets what it starts in the background ignore Ctrl-C, and that would be handed down.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def started_demo() -> Start:
    """Start a quick run of the demo that writes to a folder; whatever is left of it is killed."""
    return _started


@pytest.fixture
def processes_of() -> Callable[[Path], list[psutil.Process]]:
    """Find the living processes whose command names a folder."""

    def found(folder: Path) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline", "status"])
            if any(str(folder) in word for word in process.info["cmdline"] or ())
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    return found
