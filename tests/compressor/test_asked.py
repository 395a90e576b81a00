"""From a budget to variants in a repository, as `compress` does it."""

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
