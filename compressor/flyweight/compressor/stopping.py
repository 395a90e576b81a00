"""Ctrl-C and SIGTERM: the process ends within two seconds, and leaves no temporary files or processes behind.

Python tells its main thread of a signal between two steps of its own. A long call into a library, a run of a
large model for example, is no such step; an import must not be left, because extension modules that are
interrupted while they load crash. So the operating system's note of the signal wakes a thread as well, which
waits for the main thread as long as there is time, and then ends the process itself.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from flyweight.compressor.workspace import remove_all

if TYPE_CHECKING:
    from flyweight.compressor.outcome import CompressionReport

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Of the two seconds that a stop may take; the others are for leaving.
_PATIENCE_SECONDS: Final = 1.4
_LOOK_SECONDS: Final = 0.05
_IMPORTING: Final = "<frozen importlib._bootstrap>"
_END: Final = b"\0"


_HELD: Final = list[str]()


class Stopped(KeyboardInterrupt):
    """Ctrl-C in the middle of a run; what was found and published until then is in `report`."""

    def __init__(self, report: "CompressionReport") -> None:
        super().__init__()
        self.report = report


@contextmanager
def prompt_stop(
    last_words: Callable[[], None], afterwards: Callable[[int], None] | None = None
) -> Iterator[None]:
    """Let SIGINT and SIGTERM unwind the block, and end the process where that takes too long.

    Only the first signal counts: another must not disturb what is being tidied up. In any other than the
    main thread, which alone is told of signals, this does nothing.

    Args:
        last_words: called before the process is ended in the middle of a step.
        afterwards: called with the exit code when a signal has unwound the block.

    Raises:
        KeyboardInterrupt: SIGINT came.
        SystemExit: SIGTERM came; with 143, which is 128 + SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(last_words)
    try:
        yield
    finally:
        watch.close()
        if watch.came is not None and afterwards is not None:
            afterwards(128 + watch.came)


@contextmanager
def held(what: str) -> Iterator[None]:
    """Let a signal wait until the block ends, for the moment in which something has no owner yet."""
    _HELD.append(what)
    try:
        yield
    finally:
        _HELD.pop()


class _Watch:
    """Owns the handlers of the signals and the thread that is woken by them, until `close`."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self.came: int | None = None
        self._main = threading.get_ident()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._wait, name="stopping", daemon=True)
        self._before_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._thread.start()

    def close(self) -> None:
        """Put everything back as it was."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_wakeup)
        os.write(self._writer, _END)
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Unwind the main thread, once, and not out of an import."""
        if self.came is not None or _HELD or _imports(frame):
            return
        self.came = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _wait(self) -> None:
        """Wait for a signal, then for the end of the block."""
        while (came := os.read(self._reader, 1)) != _END:
            if came[0] in SIGNALS:
                self._await_end(came[0])
                return

    def _await_end(self, number: int) -> None:
        os.set_blocking(self._reader, False)
        last = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < last:
            with suppress(BlockingIOError):
                if _END in os.read(self._reader, 1 << 16):
                    return
            if self.came is None:
                # It was in an import when it was told, or is in a long call; asking costs nothing.
                signal.pthread_kill(self._main, number)
            time.sleep(_LOOK_SECONDS)
        end_at_once(number, self._last_words)


def end_at_once(number: int, last_words: Callable[[], None]) -> None:
    """End this process in the middle of whatever it does, as a shell expects after that signal."""
    try:
        _kill_children()
        remove_all()
        last_words()
        sys.stderr.flush()
    finally:
        os._exit(128 + number)


def leave_at_exit(code: int) -> None:
    """Leave without taking down every imported module, which takes torch's a second or two."""

    def leave() -> None:
        _kill_children()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _kill_children() -> None:
    """Kill the processes that this one started: whoever measures or searches for it has nobody to tell."""
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGKILL)
