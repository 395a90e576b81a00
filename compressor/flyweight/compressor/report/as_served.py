"""What real traffic saw: who answered when, how often, how fast, and what each variant holds in memory."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from flyweight.compressor.report import palette
from flyweight.compressor.report.bars import draw_bars, height_for, prepare_rows
from flyweight.compressor.report.drawing import Picture, canvas, quiet_axes, svg_of
from flyweight.compressor.report.traffic import HotLoad, Serving
from flyweight.compressor.report.wording import (
    MISSING,
    bytes_text,
    milliseconds_text,
    seconds_text,
    share_text,
    shortened,
)

_WIDTH = 10.4


def draw_timeline(serving: Serving, looks: Mapping[str, palette.Look]) -> Picture | None:
    """Draw answers per second by variant, with the moment of the hot load; None without a timeline."""
    if len(serving.timeline) < 2:
        return None
    starts = [start for start, _ in serving.timeline]
    width = (starts[-1] - starts[0]) / (len(starts) - 1)
    names = [name for name in looks if any(counts.get(name) for _, counts in serving.timeline)]
    layers = [[counts.get(name, 0) / width for _, counts in serving.timeline] for name in names]
    with canvas(_WIDTH, 3.6) as figure:
        axes = figure.subplots()
        quiet_axes(axes, grid="y")
        _layers(axes, [*starts, starts[-1] + width], names, layers, looks)
        highest = max(sum(column) for column in zip(*layers, strict=True))
        axes.set_xlim(starts[0], starts[-1] + width)
        axes.set_ylim(0, highest * 1.28)
        axes.set_xlabel("seconds since the traffic began")
        axes.set_ylabel("answers per second", labelpad=8)
        axes.tick_params(axis="y", labelcolor=palette.MUTED.stand_in)
        if serving.hot_load:
            _hot_load(axes, serving.hot_load, highest)
        axes.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True, handlelength=1.0, handleheight=1.0
        )
        alt = _timeline_alt(serving)
        svg = svg_of(figure, "timeline", alt)
    return Picture("timeline", "Who answered", svg, alt, _timeline_caption(serving))


def _layers(
    axes: Axes,
    edges: Sequence[float],
    names: Sequence[str],
    layers: Sequence[Sequence[float]],
    looks: Mapping[str, palette.Look],
) -> None:
    below = [0.0] * len(layers[0])
    for name, layer in zip(names, layers, strict=True):
        top = [a + b for a, b in zip(below, layer, strict=True)]
        colour = looks[name].colour
        axes.stairs(top, edges, baseline=below, fill=True, color=colour, linewidth=0, label=shortened(name))
        axes.stairs(top, edges, baseline=None, color=palette.PAPER.stand_in, linewidth=1.2)
        below = top


def _hot_load(axes: Axes, hot_load: HotLoad, highest: float) -> None:
    if hot_load.ready_at is None:
        return
    axes.axvline(hot_load.ready_at, ymax=0.86, color=palette.INK.stand_in, linewidth=1.2)
    # On whichever side there is more room.
    low, high = axes.get_xlim()
    later = hot_load.ready_at < (low + high) / 2
    axes.annotate(
        f"{shortened(hot_load.variant)} ready {seconds_text(hot_load.seconds_to_ready)} after publishing",
        (hot_load.ready_at, highest * 1.16),
        xytext=(0, 4),
        textcoords="offset points",
        ha="left" if later else "right",
        fontsize=9.5,
    )


def _timeline_caption(serving: Serving) -> str:
    told = f"{serving.requests:,} requests in {seconds_text(serving.seconds)}, {serving.failed:,} failed."
    if serving.hot_load:
        told += (
            f" {serving.hot_load.variant} was published to the repository while they ran:"
            f" {serving.hot_load.requests_during:,} requests were answered while it loaded,"
            f" {serving.hot_load.failed_during:,} failed."
        )
    return told


def _timeline_alt(serving: Serving) -> str:
    shares = ", ".join(f"{name} {share_text(served.share)}" for name, served in serving.variants.items())
    return f"Stacked areas of answers per second by variant. Shares of all answers: {shares}."


def draw_served(serving: Serving, looks: Mapping[str, palette.Look]) -> Picture | None:
    """Draw callers' latency, the stages of a request, and memory, by variant; None without traffic."""
    names = [name for name in looks if name in serving.variants and serving.variants[name].requests]
    if not names:
        return None
    with canvas(_WIDTH, height_for(len(names)) + 0.45) as figure:
        waited, stages, memory = figure.subplots(1, 3)
        for axes in (waited, stages, memory):
            prepare_rows(axes, names, labelled=axes is waited)
        p50 = {name: serving.variants[name].p50_ms for name in names}
        p99 = {name: serving.variants[name].p99_ms for name in names}
        draw_bars(waited, names, p50, lambda name: milliseconds_text(p50[name]), looks, p99)
        _stage_bars(stages, serving, names)
        held = {name: serving.variants[name].memory_bytes for name in names}
        draw_bars(memory, names, held, lambda name: bytes_text(held[name]), looks)
        _served_titles(waited, stages, memory)
        alt = _served_alt(serving, names)
        svg = svg_of(figure, "served", alt)
    caption = (
        "Left: what callers waited, client and network included; bars end at p50, thin lines at p99. "
        "Middle: where a request spent its time inside the server, on average. Right: memory that each "
        "variant adds to a process (PSS), as the server exports it."
    )
    if serving.server_memory_bytes:
        caption += (
            f" The whole server with all of them loaded held {bytes_text(serving.server_memory_bytes)}."
        )
    return Picture("served", "Latency and memory as served", svg, alt, caption)


def _served_titles(waited: Axes, stages: Axes, memory: Axes) -> None:
    waited.set_title("callers waited")
    waited.set_xlabel("ms")
    stages.set_title("stages in the server")
    stages.set_xlabel("mean ms")
    memory.set_title("memory")
    memory.set_xlabel("MB")
    memory.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}")


def _stage_bars(axes: Axes, serving: Serving, names: Sequence[str]) -> None:
    totals = []
    for row, name in enumerate(names):
        left = 0.0
        for stage, tone in palette.STAGE_TONES.items():
            found = serving.variants[name].stages.get(stage)
            mean = found.mean_ms if found else 0.0
            label = stage if row == 0 else None
            axes.barh(row, mean, left=left, height=0.62, color=tone.stand_in, linewidth=0, label=label)
            left += mean
        axes.annotate(
            milliseconds_text(left) if left else MISSING,
            (left, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )
        totals.append(left)
    axes.set_xlim(0, (max(totals) or 1.0) * 1.38)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16 - 0.5 / len(names)),
        ncols=4,
        fontsize=9,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.0,
        handletextpad=0.4,
    )


def _served_alt(serving: Serving, names: Sequence[str]) -> str:
    rows = (
        f"{name}: p50 {milliseconds_text(served.p50_ms)}, p99 {milliseconds_text(served.p99_ms)}, "
        f"{bytes_text(served.memory_bytes)}"
        for name in names
        if (served := serving.variants[name])
    )
    return f"Bar charts of latency and memory under traffic. {'; '.join(rows)}."
