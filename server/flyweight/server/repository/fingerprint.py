"""The fingerprint of a folder: what changes when any file in it does, without reading the files."""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class FileStamp:
    """A file's path inside the folder, its length, its time of change and its inode."""

    path: str
    size_bytes: int
    modified_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The stamps of every file of a folder that is not hidden, in order of path.

    `changed_ns` is when anything in it last changed, be it a name or an owner, by the file system's clock in
    nanoseconds since 1970; infinity when nobody knows. It makes no difference between two fingerprints.
    """

    files: tuple[FileStamp, ...] = ()
    changed_ns: float = field(default=inf, compare=False)

    def has(self, path: str) -> bool:
        """Tell whether a file of this path is there."""
        return any(stamp.path == path for stamp in self.files)

    @property
    def size_bytes(self) -> int:
        """Return the length of all files together."""
        return sum(stamp.size_bytes for stamp in self.files)


def take_fingerprint(folder: Path) -> Fingerprint:
    """Return the fingerprint of a folder; files that vanish meanwhile are left out.

    Raises:
        OSError: the folder itself cannot be listed.
    """
    stamps: list[FileStamp] = []
    changes: list[int] = []
    _look(folder, "", stamps, changes)
    return Fingerprint(tuple(sorted(stamps)), max(changes))


def take_loose_files(folder: Path) -> tuple[FileStamp, ...]:
    """Return the stamps of the files in a folder itself; links that lead nowhere are left out.

    Raises:
        OSError: the folder cannot be listed.
    """
    stamps: list[FileStamp] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if not entry.name.startswith(".") and entry.is_file():
                    stamps.append(_stamp(entry.name, entry.stat()))
    return tuple(sorted(stamps))


def _look(folder: Path, prefix: str, stamps: list[FileStamp], changes: list[int]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = prefix + entry.name
            try:
                # Only real folders are entered: a link to a folder above would never end.
                if entry.is_dir(follow_symlinks=False):
                    _look(Path(entry.path), path + "/", stamps, changes)
                elif entry.is_file():
                    status = entry.stat()
                    stamps.append(_stamp(path, status))
                    changes.append(status.st_ctime_ns)
            except FileNotFoundError:
                continue
    # After it was listed: what went away meanwhile has changed it.
    changes.append(folder.stat().st_ctime_ns)


def _stamp(path: str, status: os.stat_result) -> FileStamp:
    return FileStamp(path, status.st_size, status.st_mtime_ns, status.st_ino)
