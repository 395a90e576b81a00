import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo import outcome
from demo.settings import DemoSettings


def variant(name: str, *, published: bool = True, measured: bool = True) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "bytes": 1_266_000,
        "quality": {"metric": "accuracy", "value": 0.9907, "delta": -0.0046},
        "latency": {"1": {"p50_ms": 0.134, "p99_ms": 0.3, "ratio": 2.27}, "8": {"p50_ms": 1.042}},
        "memory": {"pss_bytes": 61_800_000},
    }
    missing = dict.fromkeys(figures)
    return {"name": name, "published": published, "reason": "so it is"} | (figures if measured else missing)


@pytest.fixture
def demo_document() -> dict[str, Any]:
    """A document with a variant of each fate, and traffic."""
    seen = {
        "role": "candidate",
        "requests": 10_002,
        "failed": 0,
        "asked": 0.25,
        "share": 0.377,
        "p50_ms": 1.21,
        "p99_ms": 15.89,
        "accuracy": 0.9911,
        "stages": {"run": {"mean_ms": 0.231}},
        "memory_bytes": 6_180_000,
    }
    fates = [variant("baseline"), variant("int8-dynamic"), variant("slow", published=False)]
    return {
        "model": "digits",
        "recommended": "int8-dynamic",
        "baseline": "baseline",
        "variants": [*fates, variant("broken", published=False, measured=False)],
        "serving": {
            "requests": 10_002,
            "failed": 0,
            "seconds": 8.0,
            "opening_split": {"baseline": 0.5, "int8": 0.5},
            "variants": {"int8-dynamic": seen},
            "hot_load": {"variant": "int8-dynamic", "seconds_to_ready": 0.4, "requests_during": 8},
        },
    }


@pytest.fixture
def told(demo_document: dict[str, Any], tmp_path: Path) -> str:
    """What the terminal shows at 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    outcome.tell(demo_document, DemoSettings(out=tmp_path), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_fit_eighty_columns_whole(told: str) -> None:
    assert "…" not in told


def test_figures_are_shown_in_their_units(told: str) -> None:
    row = next(line for line in told.splitlines() if line.startswith("int8-dynamic"))
    assert row.split() == [
        "int8-dynamic",
        "99.07",
        "-0.46",
        "0.134",
        "2.27",
        "1.042",
        "1.266",
        "61.80",
        "yes",
    ]


def test_what_was_not_measured_is_a_dash(told: str) -> None:
    row = next(line for line in told.splitlines() if line.startswith("broken"))
    assert row.split()[1:] == ["\N{EN DASH}"] * 7 + ["no"]


def test_refusals_are_told_with_their_reason(told: str) -> None:
    assert "not published: slow: so it is" in told


def test_it_says_where_to_look(told: str, tmp_path: Path) -> None:
    assert f"{tmp_path}/report.html" in told
    assert f"flyweight serve {tmp_path}/repository" in told


def test_summary_and_report_are_written(demo_document: dict[str, Any], tmp_path: Path) -> None:
    outcome.write_outcome(demo_document, DemoSettings(out=tmp_path))
    assert json.loads((tmp_path / "summary.json").read_text()) == demo_document
    assert "int8-dynamic" in (tmp_path / "report.html").read_text()


def test_the_opening_split_is_told_because_shares_count_the_whole_run(told: str) -> None:
    assert "Until then the split was baseline 50%, int8 50%." in " ".join(told.split())
