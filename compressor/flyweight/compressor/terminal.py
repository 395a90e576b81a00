"""What the commands show: progress on standard error, the outcome on standard output."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.recipe import BASELINE

_WIDTH_OF_A_FILE: Final = 200
_WIDTH_OF_THE_TABLE: Final = 100


class Bars:
    """Two bars: how many variants are done, and how far the current step has come."""

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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("variant", no_wrap=True)
    for heading in (
        baseline.quality.metric,
        "size",
        *(f"ms, batch {point.batch}" for point in baseline.latency),
        "memory",
        "in repo",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for variant in report.variants:
        table.add_row(*_row(variant, len(baseline.latency)))
    # Lines that a narrow terminal breaks can be read; figures cut to a dot cannot.
    Console(highlight=False, width=max(console.width, _WIDTH_OF_THE_TABLE)).print(table)
    for variant in report.variants:
        if not variant.verdict.published:
            console.print(f"{variant.name} was not published: {variant.verdict.reason}", markup=False)
    for note in report.baseline.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(
        f"{report.model}: judged on {report.samples} samples. Recommended: {report.recommended}", markup=False
    )
    console.print(f"Serve every published variant: flyweight serve {report.repository}", markup=False)


def _row(variant: VariantOutcome, points: int) -> list[str]:
    found, published = variant.evaluation, "yes" if variant.verdict.published else "no"
    if found is None:
        return [escape(variant.name), *["-"] * (points + 3), published]
    timing = [
        f"{point.p50_seconds * 1e3:.3g}" + ("" if variant.name == BASELINE else f" {point.speedup:4.2f}x")
        for point in found.latency
    ]
    return [
        escape(variant.name),
        f"{found.quality.value:.4f}",
        _bytes(found.file_bytes),
        *timing,
        _bytes(found.pss_bytes),
        published,
    ]


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
