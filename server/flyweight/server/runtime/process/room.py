"""The room of a worker: memory without a name that the server and the worker have both mapped.

A file in memory (memfd_create(2)) belongs to whoever has it open or mapped, so it vanishes with the last of
them, however they end; nothing can be left in /dev/shm. It is as long as it will ever be from the start, and
sealed so: nobody can shorten it under the other's feet (SIGBUS). Length costs nothing, only pages that were
written do.
"""

import ctypes
import fcntl
import mmap
import os
from collections.abc import Mapping
from typing import Final

import numpy as np

from flyweight.server.runtime.process.faults import PacketFault, TooLarge
from flyweight.server.runtime.process.layouts import Layout
from flyweight.server.runtime.seam import Array

# For the tensors of one run, one way. Twice the largest gRPC message: what is merged is limited as well.
HALF_BYTES: Final = 4 << 30

# What a lane keeps of its room, each way, when a run is over: 27 colour images of 224 x 224 in FP32. A larger
# run gives the rest back to the kernel and pays for new pages, 0.1 ms a megabyte, next to the 100 ms
# and more that a run on that much takes.
KEPT_BYTES: Final = 16 << 20

# fallocate(2); Python has no call for it.
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02


class Room:
    """Two halves for each lane: one for what is sent to the worker, one for what comes back."""

    def __init__(self, handle: int, lanes: int) -> None:
        """Map the file that `handle` is open on; the room owns the handle from now on.

        Raises:
            OSError: there is no address space for it.
        """
        self.handle = handle
        self._mapped = mmap.mmap(handle, 2 * lanes * HALF_BYTES)

    @classmethod
    def create(cls, lanes: int) -> "Room":
        """Return a new room.

        Raises:
            OSError: there are no more file descriptors, or no address space.
        """
        handle = os.memfd_create("flyweight-room", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(handle, 2 * lanes * HALF_BYTES)
            fcntl.fcntl(
                handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            return cls(handle, lanes)
        except BaseException:
            os.close(handle)
            raise

    def towards_worker(self, lane: int) -> "Half":
        """Return the half that the server writes."""
        return Half(self._mapped, self.handle, 2 * lane * HALF_BYTES)

    def towards_server(self, lane: int) -> "Half":
        """Return the half that the worker writes."""
        return Half(self._mapped, self.handle, (2 * lane + 1) * HALF_BYTES)

    def close(self) -> None:
        """Give up the mapping; nobody uses a half any more."""
        os.close(self.handle)
        try:
            self._mapped.close()
        except BufferError:
            # An array of a run that failed is still held by the traceback; the mapping goes with it.
            return


class Half:
    """The room for one run's tensors, one way."""

    def __init__(self, mapped: mmap.mmap, handle: int, base: int) -> None:
        self._mapped = mapped
        self._handle = handle
        self._base = base

    def write(self, layout: Layout, arrays: Mapping[str, Array]) -> None:
        """Copy arrays to where the layout says; the interpreter lock is released while large ones are copied.

        Raises:
            TooLarge: they do not fit.
        """
        if layout.payload_bytes > HALF_BYTES:
            raise TooLarge(layout.payload_bytes, HALF_BYTES)
        for tensor, array in zip(layout.tensors, arrays.values(), strict=True):
            # Text lies there as the bytes that it became, whatever shape it has.
            shape = (tensor.size_bytes,) if tensor.is_text else tensor.shape
            there: Array = np.ndarray(shape, array.dtype, self._mapped, self._base + tensor.offset)
            np.copyto(there, array)

    def content(self, payload_bytes: int) -> tuple[mmap.mmap, int]:
        """Return where a run's tensors begin.

        Raises:
            PacketFault: they would end outside.
        """
        if payload_bytes > HALF_BYTES:
            raise PacketFault(f"{payload_bytes} bytes are said to lie in a room of {HALF_BYTES}")
        return self._mapped, self._base

    def shrink(self, used_bytes: int) -> None:
        """Give back what a run used beyond `KEPT_BYTES`."""
        if used_bytes > KEPT_BYTES:
            start, length = self._base + KEPT_BYTES, used_bytes - KEPT_BYTES
            # Through ctypes also because it releases the interpreter lock, which mmap.madvise does not.
            ctypes.CDLL(None).fallocate(
                self._handle, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)
            )
