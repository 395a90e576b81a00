from pathlib import Path

import pytest
import yaml

from demo.errors import DemoError
from demo.split import Cast, choose_cast, write_split


def test_the_most_different_variants_take_part() -> None:
    assert choose_cast(["fp16", "pruned", "distilled", "int8", "pruned-int8"]) == Cast(
        ("int8", "pruned-int8"), "distilled"
    )


def test_two_variants_are_enough() -> None:
    assert choose_cast(["fp16", "int8"]) == Cast(("int8",), "fp16")


def test_one_is_too_few() -> None:
    with pytest.raises(DemoError, match="int8"):
        choose_cast(["int8"])


@pytest.mark.parametrize("candidates", [("a",), ("a", "b"), ("a", "b", "c", "d")])
def test_every_split_adds_up_to_a_hundred(candidates: tuple[str, ...]) -> None:
    cast = Cast(candidates, "late")
    assert sum(cast.opening().values()) == pytest.approx(100, abs=1e-9)
    assert sum(cast.final().values()) == pytest.approx(100, abs=1e-9)
    assert "late" not in cast.opening()


def test_the_file_says_baseline_and_split_and_nothing_is_left_over(tmp_path: Path) -> None:
    write_split(tmp_path, {"baseline": 50.0, "int8": 50.0})
    assert [path.name for path in tmp_path.iterdir()] == ["traffic.yaml"]
    assert yaml.safe_load((tmp_path / "traffic.yaml").read_text()) == {
        "baseline": "baseline",
        "split": {"baseline": 50.0, "int8": 50.0},
    }
