import pytest

from flyweight.compressor.report import wording

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"), [(None, wording.MISSING), (12, "12 B"), (131_000, "131 kB"), (1_380_000, "1.38 MB")]
)
def test_bytes_keep_three_digits(value: float | None, text: str) -> None:
    assert wording.bytes_text(value) == text


@pytest.mark.parametrize(
    ("metric", "delta", "text"),
    [
        ("accuracy", -0.0072, f"{MINUS}0.72 pt"),
        ("accuracy", 0.01, "+1.00 pt"),
        ("accuracy", -0.000001, "±0 pt"),
        ("r2", -0.5, f"{MINUS}0.5"),
    ],
)
def test_differences_carry_their_sign_and_unit(metric: str, delta: float, text: str) -> None:
    assert wording.delta_text(metric, delta) == text


def test_long_names_keep_both_ends() -> None:
    assert wording.shortened("a" * 30 + "-end", 10) == "aaaa…a-end"
