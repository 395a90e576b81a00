"""Become another program that ends when the process that started it ends, however that happens.

    python -m demo.deathwatch PARENT_PID PROGRAM [ARGUMENT ...]

Linux sends the signal set here when the starting thread is gone (prctl(2), PR_SET_PDEATHSIG); the setting
outlives exec.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str], parent: int) -> None:
    """Set the signal, make sure that the parent is still there to be missed, and become the program."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # It may have died before the signal was set.
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(arguments[0], arguments)  # noqa: S606  # the caller names the program in full


if __name__ == "__main__":
    main(sys.argv[2:], int(sys.argv[1]))
