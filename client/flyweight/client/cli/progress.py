"""How far a long command is: one line on standard error, for people only."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TextIO, TypeVar

T = TypeVar("T")

# Shorter work needs no progress; more than a few lines a second only flickers.
_FIRST_SECONDS: Final = 2.0
_EVERY_SECONDS: Final = 0.2


def track(
    items: Iterable[T],
    total: int,
    what: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yield `items`; once that takes longer than two seconds, show how many of `total` are done.

    Nothing is shown where `stream` (standard error by default) is not a terminal.
    """
    out = sys.stderr if stream is None else stream
    started = clock()
    due = started + _FIRST_SECONDS if out.isatty() else float("inf")
    shown = False
    try:
        for done, item in enumerate(items):
            now = clock()
            if now >= due:
                left = (now - started) / max(done, 1) * (total - done)
                out.write(f"\r{done}/{total} {what}, about {left:.0f} s left \x1b[K")
                out.flush()
                due, shown = now + _EVERY_SECONDS, True
            yield item
    finally:
        if shown:
            out.write("\r\x1b[K")
            out.flush()
