"""How the commands use a terminal: progress on standard error, standard output for the outcome alone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class TimeLeftColumn(ProgressColumn):
    """The time that is left at the pace so far: rich's own forgets what lies half a minute back."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return hours, minutes and seconds; dashes where nothing is known."""
        left = seconds_left(task.elapsed, task.completed, task.total)
        return Text("-:--:--" if left is None else str(timedelta(seconds=int(left))))


def seconds_left(elapsed: float | None, done: float, total: float | None) -> float | None:
    """Return how long the rest will take when it goes on as it went; None where nothing is known."""
    if elapsed is None or not done or total is None:
        return None
    return elapsed * max(0.0, total - done) / done


class Bars:
    """Two bars with the time they will take: how many variants are done, and how far the step has come."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._all = progress.add_task("variants", total=None)
        self._step = progress.add_task("reading", total=None)
        self._what = ""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Move the bar that `what` belongs to."""
        if what == "variants":
            self._progress.update(self._all, completed=done, total=total)
            what, done, total = "working", 0, None
        if what != self._what:
            self._progress.reset(self._step)
            self._what = what
        self._progress.update(self._step, description=what, completed=done, total=total)


@contextlib.contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show bars on standard error while the block runs, then clear them; nothing without a terminal."""
    # Told its file now, so that it keeps it while a tool's own output is kept away from standard error.
    console = Console(file=sys.stderr)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)


@contextlib.contextmanager
def output_kept_clean() -> Iterator[None]:
    """Send to standard error what libraries print while the block runs, from Python or from C.

    Standard output is for the result alone: a script reads it.
    """
    sys.stdout.flush()
    try:
        descriptor = sys.__stdout__.fileno() if sys.__stdout__ is not None else None
    except (OSError, ValueError):
        descriptor = None
    if descriptor is None:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    kept = os.dup(descriptor)
    os.dup2(2, descriptor)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
