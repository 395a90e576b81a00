"""Horizontal bars, one row for each variant: the plainest way to compare a figure across names."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from flyweight.compressor.report import palette
from flyweight.compressor.report.drawing import quiet_axes
from flyweight.compressor.report.wording import shortened

# Inches: a row is as high as two lines of text, the rest holds title and axis.
_ROW = 0.36
_AROUND = 0.95
_BAR = 0.62
# A thin line ends at most at so many times the longest bar: one hiccup must not flatten all bars.
_FURTHEST = 2.0
_INCHES_PER_CHARACTER = 0.074


def height_for(rows: int) -> float:
    """Return the height, in inches, of a picture with so many rows."""
    return _AROUND + _ROW * rows


def prepare_rows(axes: Axes, names: Sequence[str], *, labelled: bool) -> None:
    """Set up an axes with one row for each name, the first on top."""
    quiet_axes(axes, grid="x")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [shortened(name) for name in names] if labelled else [""] * len(names))
    axes.set_xlim(left=0)


def draw_bars(
    axes: Axes,
    names: Sequence[str],
    values: Mapping[str, float | None],
    texts: Callable[[str], str],
    looks: Mapping[str, palette.Look],
    ends: Mapping[str, float | None] | None = None,
) -> None:
    """Draw one bar for each name that has a value, with a thin line to its end if one is given, and its text.

    The axis is stretched until the longest text fits; a name without a value gets its text alone.
    """
    most = _FURTHEST * max((value for value in values.values() if value), default=1.0)
    reach = {n: max(values.get(n) or 0.0, min((ends or {}).get(n) or 0.0, most)) for n in names}
    panel = _panel_inches(axes)
    room = max((len(texts(name)) for name in names), default=0) * _INCHES_PER_CHARACTER / panel
    axes.set_xlim(0, (max(reach.values(), default=0.0) or 1.0) / max(1 - room - 0.04, 0.35))
    for row, name in enumerate(names):
        value = values.get(name)
        if value is not None:
            colour = looks[name].colour
            axes.barh(row, value, height=_BAR, color=colour, linewidth=0)
            axes.plot([value, reach[name]], [row, row], color=colour, linewidth=1.5, solid_capstyle="butt")
            if ((ends or {}).get(name) or 0.0) > most:
                axes.plot(reach[name], row, marker=">", markersize=5, color=colour, markeredgewidth=0)
        axes.annotate(
            texts(name),
            (reach[name], row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )


def _panel_inches(axes: Axes) -> float:
    """Return about how wide a panel will be: an equal part of the picture less what names and gaps take."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "an axes is drawn on a figure"
    return float(figure.get_figwidth()) / max(len(figure.axes), 1) * 0.8
