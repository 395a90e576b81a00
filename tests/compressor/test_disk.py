"""What the operating system refuses is told; anything else is a bug and keeps its traceback."""

import errno
from pathlib import Path

import pytest

from flyweight.compressor.disk import disk_trouble, disk_troubles_told, nothing_left_on_failure
from flyweight.compressor.errors import CompressorError, PassError


def told(error: OSError) -> None:
    with disk_troubles_told(Path("cache")):
        raise error


def fail_within(folder: Path, *, keep: bool) -> None:
    with nothing_left_on_failure(folder):
        folder.mkdir(parents=True)
        if keep:
            (folder / "mine").touch()
        raise PassError("no")


def test_a_full_disk_is_a_sentence_with_both_places() -> None:
    with pytest.raises(CompressorError, match=r"No space left: /x\).*TMPDIR, and in cache, or .* --work-dir"):
        told(OSError(errno.ENOSPC, "No space left", "/x"))


def test_a_file_that_is_missing_is_a_bug_of_ours() -> None:
    with pytest.raises(FileNotFoundError):
        told(FileNotFoundError(errno.ENOENT, "No such file"))


def test_the_refusal_behind_an_error_is_found() -> None:
    full = OSError(errno.ENOSPC, "No space left")
    failed = PassError("The recipe failed.")
    failed.__cause__ = full
    assert disk_trouble(failed) is full
    assert disk_trouble(PassError("another reason")) is None


@pytest.mark.parametrize("keep", [False, True])
def test_only_empty_folders_that_were_made_are_removed(keep: bool, tmp_path: Path) -> None:
    with pytest.raises(PassError):
        fail_within(tmp_path / "a" / "b", keep=keep)
    assert (tmp_path / "a").exists() == keep
    assert tmp_path.exists()
