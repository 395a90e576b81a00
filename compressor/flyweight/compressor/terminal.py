"""What the commands show: progress on standard error, the outcome on standard output."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
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
from rich.table import Table
from rich.text import Text

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.recipe import BASELINE

_WIDTH_OF_A_FILE: Final = 200
_WIDTH_OF_THE_TABLE: Final = 100
_WIDTH_OF_A_NAME: Final = 20
# More belong into the report; the gate judges them all.
_MOST_BATCHES: Final = 2


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


def print_report(report: CompressionReport) -> None:
    """Print the table of variants, why some were not published, and what to do next."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # A file or a pipe has no edge to break lines at.
        console = Console(highlight=False, width=_WIDTH_OF_A_FILE)
    baseline = report.baseline.evaluation
    assert baseline is not None, "the baseline is always measured"
    # Lines that a narrow terminal breaks can be read; figures cut to a dot cannot.
    width = max(console.width, _WIDTH_OF_THE_TABLE)
    longest = _WIDTH_OF_A_NAME if width == _WIDTH_OF_THE_TABLE else None
    # With the height too, or a terminal that calls itself dumb would get 80 columns all the same.
    wide = Console(highlight=False, width=width, height=console.height)
    wide.print(_table(report, baseline, longest))
    for variant in report.variants:
        if not variant.verdict.published:
            console.print(f"{variant.name} was not published: {variant.verdict.reason}", markup=False)
    for note in report.baseline.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(
        f"{report.model}: judged on {report.samples} samples. Recommended: {report.recommended}", markup=False
    )
    if report.recommended_reason:
        console.print(f"  {report.recommended_reason}", markup=False)
    console.print(f"Serve every published variant: flyweight serve {report.repository}", markup=False)


def _table(report: CompressionReport, baseline: Evaluation, longest: int | None) -> Table:
    """Return the table of variants, at most 100 columns wide where names are cut to `longest`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 0), pad_edge=False)
    table.add_column("variant", no_wrap=True, overflow="ellipsis", max_width=longest)
    batches = baseline.latency[:_MOST_BATCHES]
    for heading in (
        baseline.quality.metric,
        "change",
        "size",
        "smaller",
        *(f"ms, batch {point.batch}" for point in batches),
        "memory",
        "in repo",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for variant in report.variants:
        table.add_row(*_row(variant, baseline, len(batches)), style=_style(variant, report.recommended))
    return table


def _style(variant: VariantOutcome, recommended: str) -> str:
    return "bold" if variant.name == recommended else "" if variant.verdict.published else "dim"


def _row(variant: VariantOutcome, baseline: Evaluation, points: int) -> list[str]:
    found, published = variant.evaluation, "yes" if variant.verdict.published else "no"
    if found is None:
        return [escape(variant.name), *["-"] * (points + 5), published]
    original = variant.name == BASELINE
    timing = [
        f"{point.p50_seconds * 1e3:.3g}" + ("" if original else f" {_times(point.speedup)}")
        for point in found.latency[:points]
    ]
    return [
        escape(variant.name),
        f"{found.quality.value:.4f}",
        "" if original else f"{found.quality.delta:+.4f}",
        _bytes(found.file_bytes),
        "" if original else _times(baseline.file_bytes / max(found.file_bytes, 1)),
        *timing,
        _bytes(found.pss_bytes),
        published,
    ]


def _times(factor: float) -> str:
    return f"{factor:4.3g}x" if factor >= 10 else f"{factor:4.2f}x"


def _bytes(count: int) -> str:
    """Return bytes with three digits: 12.3 kB, 4.56 MB, 789 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{count / 1e3:.1f} kB" if count < 99_950 else f"{count / 1e3:.0f} kB"
