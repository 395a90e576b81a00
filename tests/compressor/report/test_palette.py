import pytest

from flyweight.compressor.report import palette


def _luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb" (WCAG 2.2, definition of relative luminance)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_mark_stands_out_from_the_paper(scheme: str) -> None:
    paper = getattr(palette.PAPER, scheme)
    drawn = [tone for tone in palette.TONES if tone not in (palette.PAPER, palette.GRID)]
    assert {tone.variable: contrast(getattr(tone, scheme), paper) >= 3 for tone in drawn} == {
        tone.variable: True for tone in drawn
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tone", [palette.INK, palette.MUTED])
def test_words_can_be_read(tone: palette.Tone, scheme: str) -> None:
    assert contrast(getattr(tone, scheme), getattr(palette.PAPER, scheme)) >= 4.5


def test_looks_follow_the_order_of_the_names_and_differ() -> None:
    given = palette.looks(["b", "a", "baseline", "c"], "baseline")
    assert list(given) == ["b", "a", "baseline", "c"]
    assert len({(look.colour, look.marker) for look in given.values()}) == 4


def test_fourteen_variants_still_look_different() -> None:
    names = [str(number) for number in range(14)]
    assert len(set(palette.looks(names, "none").values())) == 14
