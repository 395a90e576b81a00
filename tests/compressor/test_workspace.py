"""The folder of a run, and what a killed run leaves of it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flyweight.compressor.workspace import remove_all, workspace

KILLED = """
import os, signal
from flyweight.compressor.workspace import workspace
with workspace() as folder:
    (folder / "large").write_text("!")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_afterwards(temporary: Path) -> None:
    with workspace() as folder:
        (folder / "model").write_text("!")
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(temporary: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    ended = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1
    with workspace() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_the_folder_of_a_living_run_is_left_alone() -> None:
    with workspace() as first, workspace() as second:
        assert first.exists()
        assert second.exists()


def test_what_is_no_workspace_is_left_alone(temporary: Path) -> None:
    (temporary / "flyweight-compress-mine").mkdir()
    with workspace():
        pass
    assert (temporary / "flyweight-compress-mine").exists()


def test_all_of_this_process_go_when_it_is_ended() -> None:
    with workspace() as folder:
        remove_all()
        assert not folder.exists()
