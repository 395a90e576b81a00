"""Progress bars for everything that takes longer than a moment; plain lines where there is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Steps:
    """What the demo does, one step after the other, on a console.

    It is a `flyweight.compressor.context.Progress`: passes tell it how far they are.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of `what` are finished."""
        if self._bars is None:
            return
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(task, completed=done, total=total)
        if done >= total:
            # What is finished makes room; the same words may come again for another variant.
            self._bars.remove_task(self._tasks.pop(what))

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, show its bars while it lasts, and leave one line with the time that it took."""
        started = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        if not self.console.is_terminal:
            self.console.print(f"{title} ...")
        quiet = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as bars:
            self._bars = bars
            bars.add_task(title, total=None)
            try:
                yield
            finally:
                self._bars, self._tasks = None, {}
        self.console.print(
            f"[green]done[/green] {title} ({time.monotonic() - started:.0f} s)", highlight=False
        )
