"""Regions of system shared memory: opened once, read and written by copies. See shared_memory.py for why."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from flyweight.server.errors import InvalidRequest, LimitReached, RegionExists, UnknownRegion

# Where glibc's shm_open puts its objects (shm_overview(7)).
SHARED_MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 -- this is the place itself, not a scratch file

# Each holds a file open, of which a process often may have 1,024, sockets included; a load generator that
# uses shared memory takes two for each request in flight.
MOST_REGIONS: Final = 256

# NAME_MAX of Linux's file systems; names of regions come back in every Status.
_LONGEST_NAME_BYTES: Final = 255

# Objects of our own processes, and POSIX semaphores (sem_overview(7)), which are no memory for tensors.
_RESERVED: Final = ("flyweight", "sem.")


class Region:
    """A registered part of a shared memory object. Thread-safe; the file is closed after its last use."""

    def __init__(self, name: str, key: str, offset: int, size_bytes: int, descriptor: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.size_bytes = size_bytes
        self._descriptor = descriptor
        self._lock = threading.Lock()
        # One for being registered.
        self._uses = 1

    def read(self, offset: int, size_bytes: int) -> memoryview:
        """Return a copy of `size_bytes` bytes, `offset` bytes into the region.

        Raises:
            InvalidRequest: the region, or the object it lies in, ends before that.
        """
        with self._open(offset, size_bytes) as descriptor:
            # numpy's memory is not filled with zeros first, and large pages are asked for.
            data, done = np.empty(size_bytes, np.uint8).data, 0
            while done < size_bytes:
                count = os.preadv(descriptor, [data[done:]], self.offset + offset + done)
                if count == 0:
                    raise self._cut_short()
                done += count
            return data

    def write(self, offset: int, data: bytes) -> None:
        """Copy bytes to `offset` bytes into the region.

        Raises:
            InvalidRequest: the region, or the object it lies in, ends before that, or takes no more.
        """
        with self._open(offset, len(data)) as descriptor:
            view, done = memoryview(data), 0
            while done < len(data):
                try:
                    done += os.pwrite(descriptor, view[done:], self.offset + offset + done)
                except OSError as error:
                    # A file with holes in a file system that is full: through a mapping, a SIGBUS.
                    raise InvalidRequest(
                        f"The shared memory region {self.name!r} cannot be written ({error.strerror}); "
                        "make its object anew, with all of its pages."
                    ) from error

    def require(self, offset: int, size_bytes: int) -> None:
        """Raise InvalidRequest unless the region has so many bytes there."""
        if offset + size_bytes > self.size_bytes:
            raise InvalidRequest(
                f"The shared memory region {self.name!r} has {self.size_bytes} bytes, and {size_bytes} from "
                f"{offset} on do not lie in it."
            )

    def release(self) -> None:
        """End one use; the last one closes the file."""
        with self._lock:
            self._uses -= 1
            last = self._uses == 0
        if last:
            os.close(self._descriptor)

    @contextmanager
    def _open(self, offset: int, size_bytes: int) -> Iterator[int]:
        """Hold the file for a `with` block, once it is known that the part lies in it."""
        self.require(offset, size_bytes)
        with self._lock:
            if self._uses == 0:
                raise UnknownRegion(
                    f"The shared memory region {self.name!r} was just unregistered; register it again.",
                    self.name,
                )
            self._uses += 1
        try:
            # Asked at every use: the object is the caller's, who may have cut it since.
            if os.fstat(self._descriptor).st_size < self.offset + offset + size_bytes:
                raise self._cut_short()
            yield self._descriptor
        finally:
            self.release()

    def _cut_short(self) -> InvalidRequest:
        return InvalidRequest(
            f"The object {self.key!r} of the shared memory region {self.name!r} was cut short since it was "
            "registered; unregister the region and register it again."
        )


class Regions:
    """The regions by name, at most `most`. Thread-safe; owns the open files, until `close`.

    `folder` is where the objects are: another one than the system's only in tests.
    """

    def __init__(self, most: int = MOST_REGIONS, folder: Path = SHARED_MEMORY_FOLDER) -> None:
        self._most = most
        self._folder = folder
        self._lock = threading.Lock()
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, size_bytes: int) -> None:
        """Open the object `key` and keep a part of it as `name`.

        Raises:
            InvalidRequest: the key is none, or the part does not lie in the object.
            RegionExists: the name is taken; the region there stays as it is.
            LimitReached: there are as many regions as this keeps.
        """
        if not 0 < len(name.encode()) <= _LONGEST_NAME_BYTES:
            raise InvalidRequest(
                f"The name of a region has 1 to {_LONGEST_NAME_BYTES} bytes; choose another."
            )
        if size_bytes == 0:
            raise InvalidRequest(f"The region {name!r} would have no bytes; give its byte_size.")
        with self._lock:
            self._require_room(name)
            region = Region(name, key, offset, size_bytes, self._open(name, key, offset + size_bytes))
            self._regions[name] = region

    def get(self, name: str) -> Region:
        """Return a region.

        Raises:
            UnknownRegion: it is not registered.
        """
        region = self._regions.get(name)
        if region is None:
            raise UnknownRegion(f"There is no shared memory region {name!r}; register it first.", name)
        return region

    def listed(self, name: str = "") -> list[Region]:
        """Return one region, or all in order of name.

        Raises:
            UnknownRegion: it is not registered.
        """
        if name:
            return [self.get(name)]
        with self._lock:
            return sorted(self._regions.values(), key=lambda region: region.name)

    def unregister(self, name: str = "") -> None:
        """Forget one region, or all; requests that use it now go on to their end."""
        with self._lock:
            names = [name] if name else list(self._regions)
            gone = [self._regions.pop(each) for each in names if each in self._regions]
        for region in gone:
            region.release()

    def close(self) -> None:
        """Forget all regions."""
        self.unregister()

    def _require_room(self, name: str) -> None:
        if name in self._regions:
            raise RegionExists(
                f"The shared memory region {name!r} is registered already; unregister it first, or choose "
                "another name.",
                name,
            )
        if len(self._regions) >= self._most:
            raise LimitReached(
                f"The server keeps its {self._most} shared memory regions already; unregister one first."
            )

    def _open(self, name: str, key: str, end: int) -> int:
        path = self._folder / _file_name(key)
        try:
            # O_NONBLOCK: a pipe by that name would make the server wait for its other end.
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(path, flags)
        except OSError as error:
            raise InvalidRequest(
                f"The shared memory object {key!r} cannot be opened ({error.strerror}); create it first, "
                "with rights for the server's user."
            ) from error
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and end <= status.st_size:
            return descriptor
        os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{key!r} is not a shared memory object; give the key of one.")
        raise InvalidRequest(
            f"The region {name!r} would end at byte {end} of the shared memory object {key!r}, which has "
            f"{status.st_size}."
        )


def _file_name(key: str) -> str:
    """Return the name of a key's file: a key is one name, perhaps with one slash before it (shm_open(3))."""
    name = key.removeprefix("/")
    plain = "/" not in name and "\0" not in name and name not in {"", ".", ".."}
    if not plain or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise InvalidRequest(
            f"{key[:_LONGEST_NAME_BYTES]!r} is not the key of a shared memory object; give one name without "
            'slashes, or with one before it, as in "/input".'
        )
    if name.startswith(_RESERVED):
        raise InvalidRequest(f"The shared memory object {key!r} is not for tensors; use another key.")
    return name
