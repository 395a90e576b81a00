"""Waiting for the repository to change: told by inotify where that works, and never longer than a poll.

What the kernel tells only wakes the one who scans; the scan alone says what is there. So a lost event, a
network file system whose changes were made elsewhere, or a mount replaced by another cost a poll, and nothing
else.
"""

import contextlib
import errno
import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from flyweight.server.lifecycle.inotify import Inotify
from flyweight.server.repository.snapshot import Snapshot

_log = logging.getLogger(__name__)

# A watch takes about a kilobyte of the kernel's memory, and older kernels have 8192 of them for all of a
# user's programs together. A thousand variants have a folder each.
MOST_FOLDERS: Final = 2048


def folders_of(root: Path, snapshot: Snapshot) -> list[Path]:
    """Return every folder that a snapshot is made from, those near the root first. Pure."""
    models = list(snapshot.models.values())
    variants = [variant for model in models for variant in model.variants.values()]
    inner = {
        variant.folder / parent
        for variant in variants
        for stamp in variant.fingerprint.files
        for parent in PurePosixPath(stamp.path).parents
        if parent.name
    }
    outer = [*(model.folder for model in models), *(variant.folder for variant in variants)]
    return [root, *outer, *sorted(inner)]


class Watch:
    """Waits for a reason to scan. `wake` comes from any thread, everything else from the one that scans.

    Args:
        open_inotify: opens the kernel's watch; None never does, so that only time and `wake` end a wait.
        most_folders: how many folders are watched at most; the others are found changed by polling.
    """

    def __init__(
        self, open_inotify: Callable[[], Inotify] | None = Inotify, most_folders: int = MOST_FOLDERS
    ) -> None:
        self._most_folders = most_folders
        self._inotify: Inotify | None = None
        self._numbers: dict[Path, int] = {}
        self._is_limit_told = False
        self._lock = threading.Lock()
        self._is_closed = False
        # A pipe can be waited for together with inotify's descriptor; what it holds is of no meaning.
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)
        try:
            self._inotify = open_inotify() if open_inotify is not None else None
        except OSError as error:
            _log.warning("The kernel cannot watch the repository (%s); it is polled alone.", error.strerror)
        if self._inotify is not None:
            self._poll.register(self._inotify.fileno(), select.POLLIN)

    @property
    def watched(self) -> int:
        """Return how many folders the kernel watches."""
        return len(self._numbers)

    def wake(self) -> None:
        """End the wait, or the next one."""
        with self._lock:
            if not self._is_closed:
                # One that is full holds reasons to wake up enough.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writing, b"!")

    def wait(self, seconds: float) -> None:
        """Return when a folder changed, when somebody wakes us, or when the time is up."""
        ends = time.monotonic() + seconds
        while not self._look(ends - time.monotonic()) and time.monotonic() < ends:
            # Something hidden changed, as where a variant is being written before it gets its name.
            continue

    def _look(self, seconds: float) -> bool:
        """Wait once; tell whether there is a reason to scan."""
        is_reason = False
        # Rounded up: a wait that ends too soon would be followed by a scan that can confirm nothing.
        for descriptor, _ in self._poll.poll(math.ceil(max(0.0, seconds) * 1000)):
            if descriptor == self._reading:
                self._empty()
                is_reason = True
            elif self._inotify is not None:
                is_reason |= self._inotify.read()
        return is_reason

    def follow(self, folders: Sequence[Path]) -> bool:
        """Watch these folders and no others; tell whether one is watched that was not before.

        Every path is handed to the kernel again: where another folder stands in its place, as after a rename
        or a mount, that is a new watch, and otherwise it changes nothing.
        """
        if self._inotify is None:
            return False
        before, self._numbers = self._numbers, {}
        for folder in folders:
            if not self._follow(self._inotify, folder):
                break
        numbers, known = set(self._numbers.values()), set(before.values())
        for number in known - numbers:
            self._inotify.unwatch(number)
        return bool(numbers - known)

    def _follow(self, inotify: Inotify, folder: Path) -> bool:
        """Watch one folder; tell whether there is room for more."""
        if len(self._numbers) >= self._most_folders:
            self._tell_limit(folder, "more than are ever watched")
            return False
        try:
            self._numbers[folder] = inotify.watch(folder)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._tell_limit(folder, "the user's limit, fs.inotify.max_user_watches, is reached")
                return False
            # Gone since the scan, or not to be read: polling tells what becomes of it.
        return True

    def _tell_limit(self, folder: Path, why: str) -> None:
        if not self._is_limit_told:
            _log.warning(
                "%d folders of the repository are watched, and %s is not (%s); the others are polled.",
                len(self._numbers),
                folder,
                why,
            )
        self._is_limit_told = True

    def close(self) -> None:
        """Give the descriptors back; the one who waits has ended before, and `wake` does nothing any more."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._inotify is not None:
                self._inotify.close()
            os.close(self._reading)
            os.close(self._writing)

    def _empty(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 4096):
                continue
