"""Files of traces: JSON arrays that are whole after every write, kept by one thread."""

import logging
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Final

logger = logging.getLogger(__name__)

# Traces that wait to be written, each a few hundred bytes: what a disk that is busy for a moment costs.
MOST_WAITING: Final = 1024
# What all files may hold together, since the server was started: some 400,000 traces. A trace that is
# forgotten must not fill the disk.
MOST_BYTES: Final = 256 << 20

_STOP_SECONDS: Final = 5.0
_OPENING: Final = b"["
_SEPARATOR: Final = b",\n"
_CLOSING: Final = b"\n]"


class TraceFiles:
    """Appends traces to files of one folder. Thread-safe; owns one thread, from the first trace to `close`.

    What comes faster than it can be written, or would pass the bound, is dropped and counted.
    """

    def __init__(self, folder: Path, most_waiting: int = MOST_WAITING, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._left_bytes = most_bytes
        self._queue: Queue[tuple[str, bytes] | None] = Queue(most_waiting)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._complained: set[str] = set()

    @property
    def dropped(self) -> int:
        """Return how many traces were dropped."""
        return self._dropped

    def add(self, file: str, trace: bytes) -> None:
        """Have a trace, JSON objects with commas between them, written to a file; never waits."""
        try:
            self._queue.put_nowait((file, trace))
        except Full:
            self._drop(1)
            return
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Write what waits, and end the thread; give up after a few seconds."""
        with self._lock:
            thread = self._thread
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=_STOP_SECONDS)
        except Full:
            return
        thread.join(_STOP_SECONDS)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="trace", daemon=True)
                self._thread.start()

    def _write_all(self) -> None:
        while True:
            batch = self._take()
            for file in dict.fromkeys(name for name, _ in batch if name):
                self._write(file, [trace for name, trace in batch if name == file])
            if batch[-1] == ("", b""):
                return

    def _take(self) -> list[tuple[str, bytes]]:
        """Wait for a trace; return it and all that wait behind it, an empty pair standing for the end."""
        item = self._queue.get()
        batch = [item or ("", b"")]
        while item is not None:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            batch.append(item or ("", b""))
        return batch

    def _write(self, file: str, traces: Sequence[bytes]) -> None:
        size = sum(len(trace) + len(_SEPARATOR) for trace in traces)
        if size > self._left_bytes:
            self._drop(len(traces))
            self._complain(file, "the traces since the start have reached their bound")
            return
        try:
            append(self._folder / file, _SEPARATOR.join(traces))
        except OSError as error:
            self._drop(len(traces))
            self._complain(file, error.strerror or str(error))
        else:
            self._left_bytes -= size

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count

    def _complain(self, file: str, reason: str) -> None:
        """Say once for each file why traces are lost."""
        if file not in self._complained:
            self._complained.add(file)
            logger.warning("Traces for %s are dropped (%s).", self._folder / file, reason)


def append(path: Path, objects: bytes) -> None:
    """Add JSON objects with commas between them to the array in a file, made if need be.

    Raises:
        OSError: the file cannot be written, or is no array of ours: nobody's else file is touched.
    """
    # O_NOFOLLOW: a link in the folder must not lead the traces elsewhere. O_NONBLOCK: nor a pipe stop us.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o640)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        end = status.st_size
        if end == 0:
            data = _OPENING + objects + _CLOSING
        else:
            end -= len(_CLOSING)
            is_ours = end > 0 and os.pread(descriptor, len(_CLOSING), end) == _CLOSING
            if not is_ours or os.pread(descriptor, 1, 0) != _OPENING:
                raise OSError(f"{path} is not a file of traces")
            data = _SEPARATOR + objects + _CLOSING
        _write_whole(descriptor, data, end)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, data: bytes, position: int) -> None:
    """Write all of the data, or leave the file a whole array."""
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(descriptor, memoryview(data)[done:], position + done)
    except OSError:
        # The disk is full: take back what was written.
        os.ftruncate(descriptor, position)
        if position:
            os.pwrite(descriptor, _CLOSING, position)
        raise
