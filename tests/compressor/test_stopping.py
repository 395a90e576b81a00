"""Signals: when they stop the work, when they wait, and what happens when nobody listens."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.compressor.stopping import held, prompt_stop


def silent() -> None:
    """Say nothing."""


def interrupt_within(done: list[object]) -> None:
    with prompt_stop(silent, done.append):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            done.append("not reached")
        finally:
            # Impatient users press it again.
            os.kill(os.getpid(), signal.SIGINT)
            done.append("cleaned up")


def terminate_within(done: list[object]) -> None:
    with prompt_stop(silent, done.append):
        os.kill(os.getpid(), signal.SIGTERM)


def import_within(name: str) -> None:
    with prompt_stop(silent):
        importlib.import_module(name)
        signal.pause()  # the signal that came in the import is told again


def hold_within(done: list[object]) -> None:
    with prompt_stop(silent):
        with held("a test"):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all")
        signal.pause()


def test_ctrl_c_waits_while_it_is_held_and_then_comes() -> None:
    done: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        hold_within(done)
    assert done == ["all"]


def test_ctrl_c_unwinds_the_block_once() -> None:
    done: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_within(done)
    assert done == ["cleaned up", 130]


def test_sigterm_unwinds_the_block() -> None:
    done: list[object] = []
    with pytest.raises(SystemExit) as ended:
        terminate_within(done)
    assert ended.value.code == 143
    assert done == [143]


def test_an_import_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfinished = True\n"
    (tmp_path / "interrupted_import.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        import_within("interrupted_import")
    assert sys.modules.pop("interrupted_import").finished


def test_nothing_is_called_afterwards_when_no_signal_came() -> None:
    done: list[object] = []
    with prompt_stop(silent, done.append):
        pass
    assert done == []


def test_the_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with prompt_stop(silent):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


DEAF = """
import os, signal, subprocess, sys, time
from flyweight.compressor.stopping import held, prompt_stop
from flyweight.compressor.workspace import workspace
with prompt_stop(lambda: print("last words", flush=True)), workspace() as folder:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(folder, flush=True)
    while True:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_who_does_not_stop_is_ended_with_children_and_temporary_files(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DEAF],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 130, ended.stderr
    # The child holds the pipe that was read to its end, so it is gone as well.
    folder, words = ended.stdout.splitlines()
    assert words == "last words"
    assert not Path(folder).exists()
