"""Ending with the process that started this one, however that ends."""

import ctypes
import os
import signal
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_ORPHANED: Final = 0


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).

    Also while a library runs that does not return. `parent` is the process that the thread is of.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before that was asked for; nobody waits for anything then.
    if os.getppid() != parent:
        os._exit(_ORPHANED)
