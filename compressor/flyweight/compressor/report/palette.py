"""Colours that colour-blind readers can tell apart, on light and on dark paper.

Pictures are drawn once, in stand-in colours; in the page each becomes a CSS variable, so the same picture
follows the reader's scheme. The hues are those of Okabe and Ito, "Color Universal Design" (2008), made darker
for light paper and lighter for dark paper until each had a contrast of 3:1 (WCAG 2.2, 1.4.11). Markers differ
as well, so that nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tone:
    """One colour of the page: its CSS variable, its stand-in in drawings, its two values."""

    variable: str
    stand_in: str
    light: str
    dark: str


INK: Final = Tone("ink", "#010101", "#1c2024", "#edeef0")
MUTED: Final = Tone("muted", "#020202", "#5b6470", "#a3abb6")
GRID: Final = Tone("grid", "#030303", "#e3e6ea", "#2f353d")
PAPER: Final = Tone("paper", "#040404", "#ffffff", "#171b20")
BASELINE: Final = Tone("baseline", "#050505", "#5b6470", "#a3abb6")

_SERIES: Final = (
    Tone("series-1", "#060601", "#0072b2", "#56a8e8"),
    Tone("series-2", "#060602", "#c04a00", "#f0824a"),
    Tone("series-3", "#060603", "#00805c", "#2fc399"),
    Tone("series-4", "#060604", "#a3468a", "#dd8fc4"),
    Tone("series-5", "#060605", "#8f6a00", "#e3b23c"),
    Tone("series-6", "#060606", "#2a7f95", "#5fc7de"),
    Tone("series-7", "#060607", "#6a51a3", "#a99ae0"),
)
# The stages of a request in their order: calmer tones than the variants', the model's own work the strongest.
STAGE_TONES: Final[Mapping[str, Tone]] = {
    "decode": Tone("stage-decode", "#070701", "#7f93a8", "#8fa3b8"),
    "queue": Tone("stage-queue", "#070702", "#b5761f", "#e0a64f"),
    "run": Tone("stage-run", "#070703", "#2d4a6b", "#d5e3f5"),
    "encode": Tone("stage-encode", "#070704", "#5f8f7d", "#86bda8"),
}
TONES: Final = (INK, MUTED, GRID, PAPER, BASELINE, *_SERIES, *STAGE_TONES.values())
_MARKERS: Final = ("o", "D", "^", "s", "v", "P", "X")


@dataclass(frozen=True, slots=True)
class Look:
    """How one variant appears in every picture."""

    colour: str
    marker: str


def looks(names: Sequence[str], baseline: str) -> dict[str, Look]:
    """Give the baseline grey and the others a look in turn; past seven, colours come again."""
    others = [name for name in names if name != baseline]
    given = {
        name: Look(_SERIES[place % 7].stand_in, _MARKERS[(place + place // 7) % 7])
        for place, name in enumerate(others)
    }
    given[baseline] = Look(BASELINE.stand_in, "o")
    return {name: given[name] for name in names}


def with_variables(svg: str) -> str:
    """Replace the stand-in colours of a drawing by the page's variables."""
    for tone in TONES:
        svg = svg.replace(tone.stand_in, f"var(--{tone.variable})")
    return svg


def declarations(scheme: str) -> str:
    """Return the CSS declarations of all tones for the scheme "light" or "dark"."""
    return " ".join(f"--{tone.variable}: {getattr(tone, scheme)};" for tone in TONES)
