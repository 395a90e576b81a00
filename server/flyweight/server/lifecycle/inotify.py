"""inotify(7) through the C library: the kernel tells which folders changed; `watching` makes use of it."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# From <sys/inotify.h>. What is written piece by piece is told at its end (CLOSE_WRITE), not at every piece.
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_IGNORED: Final = 0x8000
_ONLYDIR: Final = 0x01000000
_WANTED: Final = (
    _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
)

# struct inotify_event: wd, mask, cookie, and the length of the name that follows, padded with zero bytes.
_EVENT: Final = struct.Struct("iIII")
# Room for some hundred events; a longer queue is read in several goes.
_READ_BYTES: Final = 64 << 10


class Inotify:
    """One inotify instance; one thread uses it.

    Raises:
        OSError: the kernel has no inotify, or gives this user no more instances of it.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._descriptor: int = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor that is readable when something happened."""
        return self._descriptor

    def watch(self, folder: Path) -> int:
        """Watch a folder, and return the watch's number: the same one for a folder that is watched already.

        Raises:
            OSError: there is no such folder, or (ENOSPC) this user has no watch left.
        """
        return self._call(self._libc.inotify_add_watch, self._descriptor, os.fsencode(folder), _WANTED)

    def unwatch(self, number: int) -> None:
        """End a watch; one that ended with its folder is no error."""
        self._libc.inotify_rm_watch(self._descriptor, number)

    def read(self) -> bool:
        """Take what has happened; tell whether any of it concerns what is not hidden.

        A lost event (the kernel's queue is bounded, and says when it overflowed) concerns everything.
        """
        is_visible = False
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return is_visible
            is_visible |= any(not name.startswith(b".") for name in _names(data))

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)

    def _call(self, function: "ctypes._NamedFuncPointer", *arguments: int | bytes) -> int:
        result: int = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _names(data: bytes) -> Iterator[bytes]:
    """Return the name each event is about, empty for the folder itself; the end of a watch is no event."""
    offset = 0
    while offset < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size + length
        if not mask & _IGNORED:
            yield data[offset - length : offset].rstrip(b"\0")
