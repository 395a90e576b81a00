"""Giving way: what has time leaves the processor to what has none."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# The lowest there is but for idleness (sched(7)). A load beside traffic takes what the traffic leaves: beside
# half of what two processors can, p99 with swaps went from 2.5 times the steady one to 1.2, and a swap took
# no longer. Who gave way and holds the interpreter's lock makes others wait only as long as runs, which do
# not need the lock, keep every processor.
_LOWEST: Final = 19


class _Own(threading.local):
    """What each thread knows of itself."""

    gave_way = False


_own = _Own()


def give_way() -> None:
    """Lower this thread's priority for good (Linux): an ordinary user may not raise it again.

    Threads that it starts are born with it. Elsewhere a priority is of the whole process, and left alone.
    """
    _own.gave_way = True
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)


def gave_way() -> bool:
    """Return whether this thread does: what it asks of other processes is to give way there, too."""
    return _own.gave_way


def do_aside(job: Callable[[], object]) -> None:
    """Have a job done by a thread that gives way, and wait for it; errors go to `threading.excepthook`."""

    def do() -> None:
        give_way()
        job()

    thread = threading.Thread(target=do, name="aside")
    thread.start()
    thread.join()
