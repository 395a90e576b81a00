import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.errors import DemoError
from demo.server_process import serving

READY = "flyweight ready grpc=127.0.0.1:1 metrics=http://127.0.0.1:2/metrics models=1 variants=2"
WAITING = f"print({READY!r}, flush=True); import signal; signal.pause()"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_addresses_are_read_from_the_ready_line_and_the_process_ends_with_the_block(tmp_path: Path) -> None:
    with serving(python(WAITING), tmp_path / "log") as server:
        assert server.address == "127.0.0.1:1"
        assert server.metrics_url == "http://127.0.0.1:2/metrics"
        server.check()
    assert server.process.returncode == -signal.SIGTERM


def test_the_process_ends_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), serving(python(WAITING), tmp_path / "log") as server:
        raise KeyboardInterrupt
    assert server.process.returncode is not None


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; sys.exit('flyweight: error: port 1 is in use.')"
    with (
        pytest.raises(DemoError, match="port 1 is in use"),
        serving(python(code), tmp_path / "log"),
    ):
        pass


def test_a_server_that_ended_is_noticed(tmp_path: Path) -> None:
    with serving(python(f"print({READY!r}, flush=True)"), tmp_path / "log") as server:
        server.process.wait(30)
        with pytest.raises(DemoError, match="ended with 0"):
            server.check()


def test_the_server_ends_when_its_parent_is_killed() -> None:
    child = f"import os; print(os.getpid(), flush=True); {WAITING}"
    start = f"['-m', 'demo.deathwatch', str(os.getpid()), sys.executable, '-c', {child!r}]"
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, *{start}])"
    with subprocess.Popen(python(parent), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # A descriptor of the process becomes readable when it ends (pidfd_open(2)).
        watched = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        ended, _, _ = select.select([watched], [], [], 30)
        os.close(watched)
    assert ended
