"""From a budget to variants in a repository, as `compress` does it."""

from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.compressor.compression import compress
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.options import Options
from flyweight.compressor.search.extra import SearchError

pytestmark = pytest.mark.usefixtures("no_memory_processes")

FAST = Options(
    seconds_per_point=0.02,
    evaluation=EvaluationSettings.quick(),
    explain=False,
    trials=3,
    time_limit_seconds=90,
)


def test_an_unsatisfiable_budget_names_the_nearest_and_publishes_nothing(digits, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(SearchError, match=r"meets the budget size<=1%.*the nearest is .*size is [\d.]+% of"):
        compress(digits[0], "size<=1%", data=digits[1], repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("budget", ["latency<<50%", "speed<=50%", "", "size"])
def test_a_malformed_budget_is_refused_before_any_work(budget: str, digits, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="budget"):
        compress(digits[0], budget, data=digits[1], repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_with_training_data_all_of_the_others_judge(digits, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    path, data = digits
    training, judging = data.split(0.5)
    options = replace(FAST, training=training)
    report = compress(path, "size<=60%", data=judging, repository=tmp_path / "r", name="net", options=options)
    assert report.samples == judging.samples == 300
    notes = " ".join(report.baseline.notes)
    assert "compared recipes on 150 of the 300 samples of --data; all of them judge." in notes
    assert any(variant.path for variant in report.variants[1:])


def test_without_training_data_the_others_judge(digits, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    path, data = digits
    report = compress(path, "size<=60%", data=data, repository=tmp_path / "r", name="net", options=FAST)
    assert report.samples == 225
    assert "compared recipes on 225 of the 450 samples that judge" in " ".join(report.baseline.notes)


def test_what_is_published_is_the_file_that_was_verified(digits, tmp_path: Path, monkeypatch) -> None:
    """Nothing is made again after the search, where a training might have less time."""
    pytest.importorskip("optuna")

    def never(*_given: object) -> None:
        raise AssertionError

    monkeypatch.setattr("flyweight.compressor.run.Run._apply", never)
    path, data = digits
    report = compress(path, "size<=60%", data=data, repository=tmp_path / "r", name="net", options=FAST)
    assert any(variant.path for variant in report.variants[1:])
