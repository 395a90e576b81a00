"""The folder in which a run works: gone when it ends, and when it was killed, with the next run."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "flyweight-compress-"
# Held as long as the run lives; whoever gets it knows that the owner is dead.
_LOCK: Final = ".lock"
_OPEN: Final = set[Path]()


@contextmanager
def workspace() -> Iterator[Path]:
    """Make a folder in the temporary one (TMPDIR) and remove it behind the block, with those of killed runs.

    Raises:
        OSError: it cannot be made.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _OPEN.add(folder)
    descriptor = -1
    try:
        descriptor = _locked(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _OPEN.discard(folder)
        if descriptor >= 0:
            os.close(descriptor)


def remove_all() -> None:
    """Remove the folders of this process's runs, which are about to end without a chance to do so."""
    for folder in list(_OPEN):
        shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> int:
    """Return the open lock of a folder; it is only called a lock once it is held."""
    unnamed = folder / f"{_LOCK}.new"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
