"""Ctrl-C and SIGTERM: neither leaves temporary files, measuring processes or a traceback behind."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.compressor.outcome import CompressionReport


class Stopped(KeyboardInterrupt):
    """Ctrl-C in the middle of a run; what was found and published until then is in `report`."""

    def __init__(self, report: "CompressionReport") -> None:
        super().__init__()
        self.report = report


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Let SIGTERM unwind the block, so that its temporary files and child processes do not outlive it.

    Raises:
        SystemExit: with 143 (128 + SIGTERM), when the signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: extension modules that are interrupted while they load crash.

    Raises:
        KeyboardInterrupt: after the block, when the signal came in it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
