"""Disks that are full or may not be written: told in a sentence, and nothing half done left on them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from flyweight.compressor.errors import CompressorError

# What is wrong with the machine or with rights; any other OSError is ours, and keeps its traceback.
_TROUBLES: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)


def disk_trouble(error: BaseException) -> OSError | None:
    """Return the refusal of the operating system that an error comes from; None when it has another cause."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _TROUBLES:
            return seen
        seen = seen.__cause__
    return None


@contextmanager
def disk_troubles_told(work_folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses in the block into an expected failure.

    Args:
        work_folder: where results are kept between runs.

    Raises:
        CompressorError: a file could not be written or read, with the folder and the remedy.
    """
    try:
        yield
    except OSError as error:
        if disk_trouble(error) is None:
            raise
        where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        raise CompressorError(
            f"The work cannot go on ({error.strerror}{where}): make room and check the rights in "
            f"{tempfile.gettempdir()}, or name another folder in TMPDIR, and in {work_folder}, or name "
            "another with --work-dir."
        ) from error


@contextmanager
def nothing_left_on_failure(folder: Path) -> Iterator[None]:
    """Remove, when the block fails, the folders up to `folder` that it made and left empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
