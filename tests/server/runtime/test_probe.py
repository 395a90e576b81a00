import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60

# A parent that starts a child, tells its number, and waits; the child ends with it or never.
CHILD = """
import os, sys, threading
from flyweight.server.runtime.parent import end_with_parent
from flyweight.server.runtime.probe import yield_to_everybody
end_with_parent(int(sys.argv[1]))
yield_to_everybody()
print(os.getpid(), os.sched_getscheduler(0), flush=True)
threading.Event().wait()
"""
PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie, for whom nobody may be left to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_probe_ends_with_a_killed_server_and_runs_when_nobody_else_does(
    parent: subprocess.Popen[str],
) -> None:
    assert parent.stdout is not None
    pid, policy = map(int, parent.stdout.readline().split())
    assert policy == os.SCHED_IDLE
    parent.send_signal(signal.SIGKILL)
    parent.wait(PATIENCE_SECONDS)
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 20):
        if not is_running(pid):
            return
        pause.wait(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the probe outlived the server")


def test_a_probe_whose_server_is_gone_already_does_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "1"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
