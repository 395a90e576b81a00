"""Giving way: what has time leaves the processor to what has none."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


class _Own(threading.local):
    """What each thread knows of itself."""

    gave_way = False


_own = _Own()


def give_way() -> None:
    """Have this thread run only when nobody else wants its processor, for good (Linux, sched(7): SCHED_IDLE).

    An ordinary user may not take that back. Threads that it starts are born with it. Elsewhere a priority is
    of the whole process, and left alone.

    Whoever wakes takes the processor from such a thread at once, where it waits for a tick of the kernel
    (4 ms) to take it from a merely nice one: with loads at nice 19, p99 was no better than with none. But one
    that holds the interpreter's lock, or the heap's, makes others wait until a processor is free; so nobody
    should give way where none ever is (see `SpareTime`).
    """
    _own.gave_way = True
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


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
