"""The tables and the headline figures, as text ready to print."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flyweight.compressor.report import palette, wording
from flyweight.compressor.report.document import Document, Variant
from flyweight.compressor.report.figures import Latency
from flyweight.compressor.report.traffic import Served


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline figure with what it means and what it was before."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a name in its look, cells, and what is said below them."""

    name: str
    tone: str
    cells: tuple[str, ...]
    badge: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    passes: str = ""


# More do not fit beside one another on a printed page; the pictures show a third.
_MOST_BATCHES: Final = 2
SERVED_COLUMNS: Final = (
    "role",
    "share asked",
    "share answered",
    "requests",
    "failed",
    "quality",
    "p50",
    "p99",
    "memory",
)


def variant_columns(document: Document) -> tuple[str, ...]:
    """Return the headings of the table of variants; a cell has a line for each of a heading's."""
    return (
        f"{document.data.quality_metric}\ndifference",
        *(f"batch {batch}: p50 / p99\nspeed-up" for batch in document.batches[:_MOST_BATCHES]),
        "file\nof baseline",
        "memory\nof baseline",
        "parameters\nmultiply-adds",
    )


def tiles(document: Document) -> tuple[Tile, ...]:
    """Return what the recommended variant wins and costs against the baseline; nothing without one."""
    chosen, before = document.variant(document.recommended), document.variant(document.baseline)
    if chosen is None or before is None or chosen.name == before.name:
        return ()
    metric, batch = chosen.quality.metric, document.batches[0]
    found = (
        Tile(
            f"speed at batch {batch}",
            wording.ratio_text(document.speedup(chosen, batch)),
            "no measurable difference"
            if document.is_as_fast(chosen, batch)
            else _from(wording.milliseconds_text, before.p50_ms(batch), chosen.p50_ms(batch)),
        ),
        Tile(
            "file size",
            wording.share_text(document.size_share(chosen)),
            _from(wording.bytes_text, before.bytes, chosen.bytes),
        ),
        Tile(
            metric,
            wording.delta_text(metric, chosen.quality.delta),
            _from(
                lambda value: wording.quality_text(metric, value),
                chosen.quality.baseline_value,
                chosen.quality.value,
            ),
        ),
        Tile(
            "memory",
            wording.share_text(_share(chosen.memory.pss_bytes, before.memory.pss_bytes)),
            _from(wording.bytes_text, before.memory.pss_bytes, chosen.memory.pss_bytes),
        ),
    )
    return tuple(tile for tile in found if tile.value != wording.MISSING)


def variant_rows(document: Document, looks: Mapping[str, palette.Look]) -> tuple[Row, ...]:
    """Return one row for every variant, published or not."""
    return tuple(_variant_row(document, variant, looks[variant.name]) for variant in document.variants)


def _variant_row(document: Document, variant: Variant, look: palette.Look) -> Row:
    metric, before = variant.quality.metric, document.variant(document.baseline)
    share = _share(variant.memory.pss_bytes, before.memory.pss_bytes if before else None)
    cells = (
        _lines(
            wording.quality_text(metric, variant.quality.value),
            wording.delta_text(metric, variant.quality.delta),
        ),
        *(_timing(document, variant, batch) for batch in document.batches[:_MOST_BATCHES]),
        _lines(wording.bytes_text(variant.bytes), wording.share_text(document.size_share(variant))),
        _lines(wording.bytes_text(variant.memory.pss_bytes), wording.share_text(share)),
        _lines(wording.count_text(variant.parameters), wording.count_text(variant.macs)),
    )
    if variant.name == document.recommended:
        badge = "recommended"
    elif variant.earlier:
        badge = "earlier run"
    else:
        badge = "" if variant.published else "not published"
    return Row(
        name=variant.name,
        tone=palette.with_variables(look.colour),
        cells=cells,
        badge=badge,
        reason=variant.reason,
        notes=variant.notes,
        passes=" → ".join(variant.passes),
    )


def served_rows(document: Document, looks: Mapping[str, palette.Look]) -> tuple[Row, ...]:
    """Return one row for every variant that had traffic; nothing without traffic."""
    serving = document.serving
    if serving is None:
        return ()
    metric = document.data.quality_metric
    return tuple(
        Row(name, palette.with_variables(looks[name].colour), _served_cells(serving.variants[name], metric))
        for name in looks
        if name in serving.variants
    )


def _served_cells(served: Served, metric: str) -> tuple[str, ...]:
    return (
        served.role or wording.MISSING,
        wording.share_text(served.asked),
        wording.share_text(served.share),
        f"{served.requests:,}",
        f"{served.failed:,}",
        wording.quality_text(metric if served.accuracy is None else "accuracy", served.accuracy),
        wording.milliseconds_text(served.p50_ms),
        wording.milliseconds_text(served.p99_ms),
        wording.bytes_text(served.memory_bytes),
    )


def _from(text: Callable[[float | None], str], before: float | None, after: float | None) -> str:
    return f"{text(before)} → {text(after)}"


def _lines(first: str, second: str) -> str:
    return wording.MISSING if first == wording.MISSING else f"{first}\n{second}"


def _timing(document: Document, variant: Variant, batch: int) -> str:
    """Return p50 and p99, and how many times as fast that is with its interval, on lines of their own."""
    timed = variant.latency.get(batch)
    lines = [_span(timed), wording.ratio_text(document.speedup(variant, batch))]
    if lines[0] == wording.MISSING or variant.name == document.baseline:
        return lines[0]
    if timed is not None and timed.ratio_interval is not None:
        lines[1] += f" ({wording.interval_text(timed.ratio_interval)})"
    if document.is_as_fast(variant, batch):
        lines.append("no measurable\ndifference")
    return "\n".join(lines)


def _span(latency: Latency | None) -> str:
    if latency is None or latency.p50_ms is None:
        return wording.MISSING
    worst = wording.milliseconds_text(latency.p99_ms)
    return f"{wording.milliseconds_text(latency.p50_ms).removesuffix(' ms')} / {worst}"


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part and whole else None
