"""Swap two paths in one step, where the system can.

Source: Linux renameat2(2), flag RENAME_EXCHANGE; Python has no wrapper for it.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

# From <fcntl.h> and <linux/fs.h>; fixed for ever, as they are part of the kernel's interface.
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2

# No such call in this kernel, no such flag in this file system.
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def exchange(first: Path, second: Path) -> bool:
    """Swap two existing paths of a file system in one step; return False, with nothing changed, if it cannot.

    Raises:
        OSError: the system knows how, but may not or cannot.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if rename(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fspath(second))
