"""Drawings as inline SVG: the same bytes for the same figures, text as text, colours as CSS variables."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flyweight.compressor.report import palette

_STYLE: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flyweight",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.parse_math": False,
    "text.color": palette.INK.stand_in,
    "axes.labelcolor": palette.MUTED.stand_in,
    "axes.edgecolor": palette.GRID.stand_in,
    "axes.titlecolor": palette.INK.stand_in,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": palette.GRID.stand_in,
    "ytick.color": palette.GRID.stand_in,
    "xtick.labelcolor": palette.MUTED.stand_in,
    "ytick.labelcolor": palette.INK.stand_in,
    "grid.color": palette.GRID.stand_in,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with what it shows in words: `alt` for those who do not see it, `caption` for everybody."""

    name: str
    title: str
    svg: Markup
    alt: str
    caption: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Give a figure of `width` by `height` inches in the report's style."""
    # From matplotlib's own defaults, so that a user's matplotlibrc cannot change the report.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield Figure(figsize=(width, height), layout="constrained")


def svg_of(figure: Figure, name: str, alt: str) -> Markup:
    """Return a figure as an <svg> element for a page that holds several: its ids begin with `name`.

    Call it inside `canvas`, whose settings it needs.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(xlink:)?href="#', f'href="#{name}-', text)
    text = text.replace("'DejaVu Sans'", "var(--font)")
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]+"', head)
    label = Markup.escape(alt)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view[0] if view else ""} role="img" aria-label="{label}"'
    )
    # Everything above was written by matplotlib, which escapes the names it draws.
    return Markup(f"{opening}>{palette.with_variables(body)}")  # noqa: S704


def quiet_axes(axes: Axes, *, grid: str) -> None:
    """Leave an axes its grid along one axis ("x" or "y") or "both", and no tick marks."""
    axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]  # the callers pass literals
    axes.tick_params(length=0, pad=6)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(grid == "both")
