"""Axes whose ticks are numbers that people would write by hand."""

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from flyweight.compressor.report.wording import is_share

# The last two serve figures that are close together: multiples of a half and of a tenth.
_SERIES: Final = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(halves / 2 for halves in range(2, 20)),
    tuple(tenths / 10 for tenths in range(10, 100)),
)
# A quality axis spans at least this share of samples, so that differences of chance do not fill the picture.
_LEAST_SPAN: Final = 0.02
# A logarithmic axis spans at least this factor, for the same reason.
_LEAST_FACTOR: Final = 2.0
_NARROW_FACTOR: Final = 3.0


def quality_axis(axes: Axes, metric: str, values: Sequence[float]) -> None:
    """Scale the y axis to the values; shares of samples in percent, up to little more than 100."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if not is_share(metric):
        return
    axes.set_ylim(*share_limits(values))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def share_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis for shares of samples: around the values, wide enough, not far above 1."""
    span = max(max(values) - min(values), _LEAST_SPAN)
    middle = (max(values) + min(values)) / 2
    top = min(middle + 0.66 * span, 1 + 0.15 * span)
    return min(min(values) - 0.16 * span, top - 1.32 * span), top


def plain_log_axis(axes: Axes, unit: float) -> None:
    """Label a logarithmic x axis with plain numbers, its values multiplied by `unit`."""
    low, high = wide_enough(*axes.get_xlim())
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick / unit for tick in log_ticks(low * unit, high * unit)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * unit:.6g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def wide_enough(low: float, high: float) -> tuple[float, float]:
    """Return the ends of a logarithmic axis, at least a factor apart, so that noise does not fill it."""
    missing = max(_LEAST_FACTOR / (high / low), 1.0) ** 0.5
    return low / missing, high * missing


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two positive limits, at least two and seldom more than nine.

    Of ever finer series of round numbers the first one that gives four ticks or more.
    """
    if high / low < _NARROW_FACTOR:
        # So short a piece of a logarithmic axis is nearly straight.
        return [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    found: list[float] = []
    for digits in _SERIES:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [d * 10.0**e for e in exponents for d in digits if low <= d * 10.0**e <= high]
        if len(found) >= 4:
            break
    return found if len(found) > 1 else [low, high]
