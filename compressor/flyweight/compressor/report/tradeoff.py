"""The picture that decides: quality against latency and against size, with the Pareto front."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flyweight.compressor.report import palette
from flyweight.compressor.report.document import Document, Variant
from flyweight.compressor.report.drawing import Picture, canvas, quiet_axes, svg_of
from flyweight.compressor.report.front import pareto_front
from flyweight.compressor.report.labels import Box, Spot, place_labels
from flyweight.compressor.report.ticks import plain_log_axis, quality_axis
from flyweight.compressor.report.wording import (
    bytes_text,
    is_share,
    milliseconds_text,
    quality_text,
    shortened,
)

_POINTS_PER_INCH = 72.0
# With more names than this in one picture, only those that matter are written out.
_MOST_LABELS = 14
# Marker areas in points squared: the largest file, and the least that still shows a shape.
_LARGEST_AREA, _LEAST_AREA = 520.0, 64.0


@dataclass(frozen=True, slots=True)
class Dot:
    """One variant in a panel."""

    variant: Variant
    x: float
    y: float
    area: float
    on_front: bool


def draw_tradeoff(document: Document, looks: Mapping[str, palette.Look]) -> Picture | None:
    """Draw quality over latency at the smallest batch and over file size; None when nothing has both."""
    timed = _dots(document, {v.name: v.p50_ms(document.batches[0]) for v in document.variants})
    sized = _dots(document, {v.name: v.bytes for v in document.variants})
    if not timed or not sized:
        return None
    metric = document.data.quality_metric
    with canvas(10.4, 4.9) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.3, 1])
        _panel(left, document, timed, looks)
        _panel(right, document, sized, looks)
        quality_axis(left, metric, [dot.y for dot in (*timed, *sized)])
        left.set_title("against latency (marker area: file size)")
        left.set_xlabel(f"median latency at batch {document.batches[0]}, ms, log scale")
        left.set_ylabel(_quality_label(metric))
        right.set_title("against file size")
        right.set_xlabel("file size, MB, log scale")
        plain_log_axis(left, 1.0)
        plain_log_axis(right, 1e-6)
        _write_names(figure, [(left, timed), (right, sized)], document)
        alt = _alt(document, timed)
        svg = svg_of(figure, "tradeoff", alt)
    return Picture("tradeoff", f"{metric.capitalize()} against latency and size", svg, alt, _CAPTION)


_CAPTION = (
    "Up and to the left is better. The line is the Pareto front of each panel: nothing measured is both "
    "better and cheaper than a point on it. Hollow markers were measured but not published; the ring marks "
    "the recommendation."
)


def _dots(document: Document, costs: Mapping[str, float | None]) -> list[Dot]:
    known = [
        (variant, cost, variant.quality.value)
        for variant in document.variants
        if (cost := costs[variant.name]) and variant.quality.value is not None
    ]
    front = set(pareto_front({v.name: (cost, -value) for v, cost, value in known}))
    largest = max((v.bytes or 0 for v, _, _ in known), default=0) or 1
    return [
        Dot(v, cost, value, max(_LARGEST_AREA * (v.bytes or 0) / largest, _LEAST_AREA), v.name in front)
        for v, cost, value in known
    ]


def _panel(axes: Axes, document: Document, dots: Sequence[Dot], looks: Mapping[str, palette.Look]) -> None:
    axes.set_xscale("log")
    quiet_axes(axes, grid="both")
    axes.margins(x=0.16, y=0.16)
    front = sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.x)
    axes.plot(
        [d.x for d in front],
        [d.y for d in front],
        drawstyle="steps-post",
        color=palette.MUTED.stand_in,
        linewidth=1.2,
        zorder=1,
    )
    for dot in sorted(dots, key=lambda dot: -dot.area):
        _draw_dot(axes, dot, looks[dot.variant.name], recommended=dot.variant.name == document.recommended)


def _draw_dot(axes: Axes, dot: Dot, look: palette.Look, *, recommended: bool) -> None:
    filled = dot.variant.published
    axes.scatter(
        dot.x,
        dot.y,
        s=dot.area,
        marker=look.marker,
        facecolor=look.colour if filled else palette.PAPER.stand_in,
        edgecolor=palette.PAPER.stand_in if filled else look.colour,
        linewidth=1.0 if filled else 1.8,
        zorder=3,
    )
    if recommended:
        radius = dot.area**0.5 + 9
        axes.scatter(
            dot.x,
            dot.y,
            s=radius**2,
            facecolor="none",
            edgecolor=palette.INK.stand_in,
            linewidth=1.4,
            zorder=4,
        )


def _write_names(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Dot]]], document: Document) -> None:
    """Write the names once the layout stands, where they cover nothing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, dots in panels:
        named = [dot for dot in dots if len(dots) <= _MOST_LABELS or _matters(dot, document)]
        _write_names_of(axes, named, document)


def _matters(dot: Dot, document: Document) -> bool:
    return dot.on_front or dot.variant.name in (document.baseline, document.recommended)


def _write_names_of(axes: Axes, dots: Sequence[Dot], document: Document) -> None:
    pixels = axes.transData.transform([(dot.x, dot.y) for dot in dots])
    scale = axes.figure.dpi / _POINTS_PER_INCH
    chosen = document.recommended
    spots = [
        Spot(x, y, _radius(dot, chosen) * scale, len(_label(dot)) * 5.9 * scale, 12 * scale)
        for dot, (x, y) in zip(dots, pixels, strict=True)
    ]
    window = axes.get_window_extent()
    frame = Box(window.x0 + 2, window.y0 + 2, window.x1, window.y1)
    boxes = place_labels(
        spots, frame, _front_boxes([s for d, s in zip(dots, spots, strict=True) if d.on_front])
    )
    for dot, spot, box in zip(dots, spots, boxes, strict=True):
        _write_name(axes, dot, spot, box, bold=dot.variant.name == chosen)


def _radius(dot: Dot, chosen: str | None) -> float:
    """Return the radius, in points, that a marker covers; the recommendation has its ring."""
    return math.sqrt(dot.area) / 2 + (6 if dot.variant.name == chosen else 2)


def _front_boxes(front: Sequence[Spot]) -> list[Box]:
    """Return thin boxes along the steps of the front, which names should not cover."""
    ordered = sorted(front, key=lambda spot: spot.x)
    boxes = []
    for one, other in pairwise(ordered):
        low, high = sorted((one.y, other.y))
        boxes.append(Box(one.x, one.y - 1, other.x, one.y + 1))
        boxes.append(Box(other.x - 1, low, other.x + 1, high))
    return boxes


def _write_name(axes: Axes, dot: Dot, spot: Spot, box: Box, *, bold: bool) -> None:
    scale = axes.figure.dpi / _POINTS_PER_INCH
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    distance = max(abs(middle[0] - spot.x) - spot.width / 2, abs(middle[1] - spot.y) - spot.height / 2)
    line = {"arrowstyle": "-", "color": palette.MUTED.stand_in, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
    axes.annotate(
        _label(dot),
        (spot.x / scale, spot.y / scale),
        xycoords="figure points",
        xytext=(middle[0] / scale, middle[1] / scale),
        textcoords="figure points",
        ha="center",
        va="center",
        fontsize=9.5,
        fontweight="bold" if bold else "normal",
        # Far from its point a name needs a line to it.
        arrowprops=line if distance > spot.radius + 12 * scale else None,
        zorder=5,
    )


def _label(dot: Dot) -> str:
    return shortened(dot.variant.name)


def _quality_label(metric: str) -> str:
    return f"{metric}, %" if is_share(metric) else metric


def _alt(document: Document, dots: Sequence[Dot]) -> str:
    metric = document.data.quality_metric
    points = (
        f"{dot.variant.name}: {quality_text(metric, dot.y)}, {milliseconds_text(dot.x)}, "
        f"{bytes_text(dot.variant.bytes)}" + (", on the front" if dot.on_front else "")
        for dot in dots
    )
    return f"Scatter plot of {metric} against latency and size. {'; '.join(points)}."
