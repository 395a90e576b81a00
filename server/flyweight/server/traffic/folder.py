"""A model's folder as those write it who change its traffic: whole files, one writer at a time."""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.server.errors import DeadlineExceeded

TRAFFIC_FILE: Final = "traffic.yaml"
# Hidden, so that no scan takes notice of it.
HISTORY_FILE: Final = ".traffic-history.json"

# How often a lock that somebody else holds is tried again; it is held for some writes of a few hundred bytes.
_LOCK_POLL_SECONDS: Final = 0.01
_CANNOT_LOCK: Final = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class TrafficFolder:
    """The files in `folder` that say who answers a model's requests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / TRAFFIC_FILE

    @contextmanager
    def lock(self, seconds_left: Callable[[], float], pause: Callable[[float], object]) -> Iterator[None]:
        """Keep other servers on the same folder from changing traffic for the length of a `with` block.

        The lock is flock(2)'s, on the folder itself, so it ends with its holder and leaves no file. On file
        systems that have no such locks, servers are not kept apart: the last one to write wins.

        Args:
            seconds_left: how long to wait for another server that changes traffic.
            pause: waits for so many seconds.

        Raises:
            RepositoryError: the folder cannot be opened.
            DeadlineExceeded: another server held the lock all the time.
        """
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RepositoryError(
                f"{self._folder} cannot be opened ({error.strerror}); check that it is there."
            ) from error
        try:
            while not _try_lock(descriptor):
                if seconds_left() <= 0:
                    raise DeadlineExceeded(f"{self._folder} is being changed by another server; ask again.")
                pause(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> str | None:
        """Return the text of traffic.yaml; None when there is none.

        Raises:
            RepositoryError: it cannot be read, or is not a file of its own.
        """
        return self._read(self.path)

    def write(self, text: str) -> None:
        """Put a text in the place of traffic.yaml: whoever reads it sees all of the old or all of the new.

        Raises:
            RepositoryError: it cannot be written; the old one is as it was.
        """
        self._write(self.path, text)

    def read_history(self) -> str | None:
        """Return what is remembered of promotions; None when there is nothing.

        Raises:
            RepositoryError: it cannot be read, or is not a file of its own.
        """
        return self._read(self._folder / HISTORY_FILE)

    def write_history(self, text: str | None) -> None:
        """Remember a text; None forgets what was remembered.

        Raises:
            RepositoryError: it cannot be written; the old one is as it was.
        """
        path = self._folder / HISTORY_FILE
        if text is not None:
            self._write(path, text)
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _read(self, path: Path) -> str | None:
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise RepositoryError(
                    f"{path} is a link or no file at all, so it cannot be replaced; change what it leads to."
                )
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RepositoryError(
                f"{path} cannot be read ({error.strerror}); check its permissions."
            ) from error

    def _write(self, path: Path, text: str) -> None:
        staging = ""
        try:
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
            descriptor, staging = tempfile.mkstemp(prefix=".traffic-", suffix=".tmp", dir=self._folder)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, mode)
                # On disk before it has its name: a crash must not leave an empty file under it.
                os.fsync(descriptor)
            Path(staging).replace(path)
            staging = ""
            _sync_folder(self._folder)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            if staging:
                with contextlib.suppress(OSError):
                    Path(staging).unlink()


def _unwritable(path: Path, error: OSError) -> RepositoryError:
    return RepositoryError(
        f"{path} cannot be written ({error.strerror}); nothing was changed: change it where the repository "
        "is kept, or let the server write there."
    )


def _try_lock(descriptor: int) -> bool:
    """Lock a folder if nobody else has; tell whether to go on."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A network file system that maps these locks to others, or to none.
        if error.errno not in _CANNOT_LOCK:
            raise RepositoryError(f"A folder cannot be locked ({error.strerror}); try again.") from error
    return True


def _sync_folder(folder: Path) -> None:
    """Have the new name survive a loss of power, where the file system can do that for folders."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
