"""Latency, size and memory of every variant, as the compressor measured them."""

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes

from flyweight.compressor.report import palette
from flyweight.compressor.report.bars import draw_bars, height_for, prepare_rows
from flyweight.compressor.report.document import Document
from flyweight.compressor.report.drawing import Picture, canvas, svg_of
from flyweight.compressor.report.wording import MISSING, TIMES, bytes_text, milliseconds_text, ratio_text

_WIDTH = 10.4


def draw_latency(document: Document, looks: Mapping[str, palette.Look]) -> Picture | None:
    """Draw p50 and p99 at every batch size that was measured; None when none was."""
    batches = sorted({batch for variant in document.variants for batch in variant.latency})[:3]
    names = [variant.name for variant in document.variants if variant.latency]
    if not batches or not names:
        return None
    with canvas(_WIDTH, height_for(len(names))) as figure:
        panels = figure.subplots(1, len(batches), squeeze=False)[0]
        for place, (axes, batch) in enumerate(zip(panels, batches, strict=True)):
            prepare_rows(axes, names, labelled=place == 0)
            _latency_panel(axes, document, batch, looks)
            axes.set_title(f"batch {batch}")
            axes.set_xlabel("ms for one call")
        alt = _latency_alt(document, batches)
        svg = svg_of(figure, "latency", alt)
    caption = (
        "Bars end at the median (p50), thin lines at p99. The factor is how many times as fast as the "
        f"baseline it is, below 1{TIMES} is slower; both were timed in turns, so it can differ a little from "
        "the quotient of the medians. The dashed line is the baseline's median. Lines with an arrow end "
        "beyond the picture."
    )
    return Picture("latency", "Latency of one call", svg, alt, caption)


def _latency_panel(axes: Axes, document: Document, batch: int, looks: Mapping[str, palette.Look]) -> None:
    variants = {v.name: v for v in document.variants if v.latency}
    names = list(variants)
    values = {name: variant.p50_ms(batch) for name, variant in variants.items()}
    ends = {name: _p99(document, name, batch) for name in names}

    def text(name: str) -> str:
        factor = ratio_text(document.speedup(variants[name], batch))
        return f"{milliseconds_text(values[name])} · {factor}" if values[name] is not None else MISSING

    draw_bars(axes, names, values, text, looks, ends)
    reference = values.get(document.baseline)
    if reference:
        axes.axvline(reference, color=palette.MUTED.stand_in, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)


def _p99(document: Document, name: str, batch: int) -> float | None:
    variant = document.variant(name)
    latency = variant.latency.get(batch) if variant else None
    return latency.p99_ms if latency else None


def _latency_alt(document: Document, batches: list[int]) -> str:
    rows = (
        f"{variant.name}: "
        + ", ".join(
            f"batch {batch} p50 {milliseconds_text(variant.p50_ms(batch))}, "
            f"p99 {milliseconds_text(_p99(document, variant.name, batch))}"
            for batch in batches
        )
        for variant in document.variants
        if variant.latency
    )
    return f"Bar chart of latency by variant. {'; '.join(rows)}."


def draw_footprint(document: Document, looks: Mapping[str, palette.Look]) -> Picture | None:
    """Draw file size and memory side by side; None when neither is known."""
    sizes = {v.name: float(v.bytes) for v in document.variants if v.bytes}
    memory = {v.name: float(v.memory.pss_bytes) for v in document.variants if v.memory.pss_bytes is not None}
    names = [v.name for v in document.variants if v.name in sizes or v.name in memory]
    if not names:
        return None
    with canvas(_WIDTH, height_for(len(names))) as figure:
        left, right = figure.subplots(1, 2)
        for axes, values, title in ((left, sizes, "file size"), (right, memory, "memory")):
            prepare_rows(axes, names, labelled=axes is left)
            draw_bars(axes, names, {n: values.get(n) for n in names}, _bytes_of(values), looks)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")
            axes.set_title(title)
            axes.set_xlabel("MB")
        rows = (
            f"{n}: {bytes_text(sizes.get(n))} on disk, {bytes_text(memory.get(n))} in memory" for n in names
        )
        alt = f"Bar charts of file size and memory by variant. {'; '.join(rows)}."
        svg = svg_of(figure, "footprint", alt)
    caption = (
        "Memory is what a process that holds only this variant grows by when it loads and runs it "
        "(proportional set size, PSS): weights as the runtime keeps them, packed copies, work space."
    )
    return Picture("footprint", "Size and memory", svg, alt, caption)


def _bytes_of(values: Mapping[str, float]) -> Callable[[str], str]:
    return lambda name: bytes_text(values.get(name))
