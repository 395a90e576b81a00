"""The files that this process has open, and that a piece of work leaves none of them behind."""

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What other tests left, channels that connect again for instance, comes and goes for a while.
_PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.02


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a Path would open one itself


@contextmanager
def no_file_left() -> Iterator[None]:
    """Fail if more files are open after the work than before it; the collector does not help."""
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        yield
        ends = time.monotonic() + _PATIENCE_SECONDS
        while (files := open_files()) > before and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)
        assert files <= before
    finally:
        gc.enable()
