"""Files that are read again when they change."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from flyweight.server.errors import StartError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

# What tells one state of a file from another: device, inode, size, and the time of its last change.
_FileStamp: TypeAlias = tuple[int, int, int, int] | None


class Reloaded(Generic[Content]):
    """What files say, read again when they change; a broken change keeps what was read before.

    Links are followed at every look, so that a folder of links that are swapped at once, as Kubernetes mounts
    secrets, is seen. Thread-safe; owns no thread: it looks when `refresh` is called.

    Raises:
        StartError: the files cannot be used to begin with.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], Content]) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._looking = threading.Lock()
        # Before the reading: what changes meanwhile is then read once more.
        self._stamps = self._look()
        self._content = read()

    @property
    def content(self) -> Content:
        """What the files said when they were last good."""
        return self._content

    def refresh(self) -> bool:
        """Read the files again if they changed; tell whether there is a new content.

        While another thread does that, nothing is new to this one, which so never waits.
        """
        if not self._looking.acquire(blocking=False):
            return False
        try:
            return self._refresh()
        finally:
            self._looking.release()

    def _refresh(self) -> bool:
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self._content = self._read()
        except StartError as error:
            # Once for each change, not for each look.
            logger.warning("%s Going on with what was read before.", error)
            return False
        logger.info("Read %s again.", ", ".join(map(str, self._paths)))
        return True

    def _look(self) -> tuple[_FileStamp, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> _FileStamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
