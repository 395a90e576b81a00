"""Swapping two folders in one step."""

import ctypes
import errno
from pathlib import Path
from typing import Any

import pytest

from flyweight.protos.variant.exchange import exchange


def test_two_folders_change_places(tmp_path: Path) -> None:
    (tmp_path / "a" / "in a").mkdir(parents=True)
    (tmp_path / "b" / "in b").mkdir(parents=True)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot swap two folders")
    assert (tmp_path / "a" / "in b").is_dir()
    assert (tmp_path / "b" / "in a").is_dir()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match="missing"):
        exchange(tmp_path / "a", tmp_path / "missing")


class Library:
    """A C library whose renameat2 fails with one error, or that has none."""

    def __init__(self, code: int | None) -> None:
        if code is not None:
            self.renameat2 = lambda *arguments: ctypes.set_errno(code) or -1


@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_system_that_cannot_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int | None
) -> None:
    def load(name: Any, use_errno: bool) -> Library:
        return Library(code)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert exchange(tmp_path / "a", tmp_path / "b") is False
