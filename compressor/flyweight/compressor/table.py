"""The outcome of a compression as text: the table of variants, why some were refused, which one to use."""

import io
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.phrases import as_fast
from flyweight.compressor.recipe import BASELINE

_WIDTH_OF_A_FILE: Final = 200
_WIDTH_OF_THE_TABLE: Final = 100
_WIDTH_OF_A_NAME: Final = 20
# More belong into the report; the gate judges them all.
_MOST_BATCHES: Final = 2
_SAME: Final = "same"
_LEGEND: Final = (
    f"{_SAME}: no measurable difference in speed, the 95 % interval of its ratio to the baseline includes 1."
)


def print_report(report: CompressionReport) -> None:
    """Print the table of variants, why some were not published, and what to do next."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # A file or a pipe has no edge to break lines at.
        console = Console(highlight=False, width=_WIDTH_OF_A_FILE)
    # Lines that a narrow terminal breaks can be read; figures cut to a dot cannot.
    width = max(console.width, _WIDTH_OF_THE_TABLE)
    longest = _WIDTH_OF_A_NAME if width == _WIDTH_OF_THE_TABLE else None
    # With the height too, or a terminal that calls itself dumb would get 80 columns all the same.
    wide = Console(highlight=False, width=width, height=console.height)
    wide.print(_table(report, longest))
    _print_sentences(console, report)
    console.print(f"Serve every published variant: flyweight serve {report.repository}", markup=False)


def text_of(report: CompressionReport) -> str:
    """Return the table of variants, why some were not published, and the recommendation."""
    written = io.StringIO()
    console = Console(
        file=written, highlight=False, width=_WIDTH_OF_A_FILE, force_terminal=False, color_system=None
    )
    console.print(_table(report, None))
    _print_sentences(console, report)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()).strip("\n")


def _print_sentences(console: Console, report: CompressionReport) -> None:
    points = [p for v in report.variants if v.evaluation for p in v.evaluation.latency[:_MOST_BATCHES]]
    if any(map(_is_same, points)):
        console.print(_LEGEND, markup=False)
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


def _table(report: CompressionReport, longest: int | None) -> Table:
    """Return the table of variants, at most 100 columns wide where names are cut to `longest`."""
    baseline = report.baseline.evaluation
    assert baseline is not None, "the baseline is always measured"
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
    if variant.earlier is not None:
        published = "earlier"
    if found is None:
        return [escape(variant.name), *["-"] * (points + 5), published]
    original = variant.name == BASELINE
    timing = [
        f"{point.p50_seconds * 1e3:.3g}" + ("" if original else f" {_speedup(point)}")
        for point in found.latency[:points]
    ]
    # A model whose batch size is fixed may have been measured at fewer than its baseline was by another run.
    timing += ["-"] * (points - len(timing))
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


def _is_same(point: LatencyPoint) -> bool:
    """Tell whether a variant's speed could not be told from the baseline's; the baseline has no interval."""
    return as_fast(point) and point.speedup_low < point.speedup_high


def _speedup(point: LatencyPoint) -> str:
    return f"{_SAME:>5}" if _is_same(point) else _times(point.speedup)


def _times(factor: float) -> str:
    return f"{factor:4.3g}x" if factor >= 10 else f"{factor:4.2f}x"


def _bytes(count: int) -> str:
    """Return bytes with three digits: 12.3 kB, 4.56 MB, 789 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{count / 1e3:.1f} kB" if count < 99_950 else f"{count / 1e3:.0f} kB"
