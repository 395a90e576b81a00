"""One trial: cheap figures first, time only for what may pass, failures as bad scores."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flyweight.compressor.errors import OutOfTimeError, PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.choices import AS_IS
from flyweight.compressor.search.figures import Figures
from flyweight.compressor.search.outcome import SearchOutcome, gather
from flyweight.compressor.search.space import Choice, Gene, Space, Stage, Step
from flyweight.compressor.search.study import Finished
from flyweight.compressor.search.trials import FAILED, Assessor

INT8 = Choice("static-int8", (Step("static-int8", {"percentile": Gene((99.0, 99.9, 100.0))}),))
SPACE = Space((Stage("numbers", (AS_IS, INT8, Choice("fp16", (Step("fp16"),)))),), Form.ONNX)
BASE = Figures(size=1000, quality={"accuracy": 0.9, "agreement": 1.0}, metric="accuracy", latency=0.01)


@dataclass
class Bench:
    """Makes and measures by a table; remembers what it was asked."""

    figures: Mapping[str, tuple[float, float, float]]
    asked: list[str] = field(default_factory=list)
    baseline: Figures = BASE

    def build(self, recipe: Pass) -> PassResult:
        name = f"{recipe.name}{getattr(recipe, 'percentile', '')}"
        self.asked.append(f"build {name}")
        if name not in self.figures:
            raise PassError("It has no such layer.")
        return PassResult(Model(path=Path(name)), changed=True, notes=("Done.",))

    def tidy(self) -> None:
        self.asked.append("tidy")

    def look(self, path: Path) -> Figures:
        self.asked.append(f"look {path}")
        _, size, accuracy = self.figures[str(path)]
        return Figures(size=size, quality={"accuracy": accuracy}, metric="accuracy")

    def time(self, path: Path, found: Figures) -> Figures:
        self.asked.append(f"time {path}")
        return replace(found, latency=self.figures[str(path)][0])


def assessor(bench: Bench, budget: str, done: Callable[[], list[Finished]] = list) -> Assessor:
    return Assessor(SPACE, Budget.parse(budget), bench, bench, done)


TABLE = {
    "static-int899.0": (0.004, 300, 0.89),
    "static-int899.9": (0.005, 300, 0.895),
    "fp16": (0.01, 500, 0.9),
}
GENES = [{"numbers": 1, "static-int8.percentile": place} for place in range(3)] + [
    {"numbers": 2},
    {"numbers": 0},
]


def searched(budget: str) -> SearchOutcome:
    bench, done = Bench(TABLE), list[Finished]()
    assess = assessor(bench, budget, lambda: done)
    for number, genes in enumerate(GENES):
        done.append(Finished(number, genes, assess(genes)))
    return gather(done, Budget.parse(budget), BASE, SPACE)


def test_a_variant_within_the_budget_is_timed_and_scored() -> None:
    bench = Bench(TABLE)
    score = assessor(bench, "size<=50%, accuracy>=-1pt")(GENES[0])
    assert score.values == pytest.approx((0.4, 0.3, 0.01))
    assert max(score.misses.values()) <= 1e-9
    assert bench.asked == ["build static-int899.0", "look static-int899.0", "time static-int899.0", "tidy"]
    assert score.told["kind"] == "static int8"
    assert score.told["notes"] == ["Done."]


def test_what_misses_the_budget_by_what_is_cheap_to_see_is_not_timed() -> None:
    bench = Bench(TABLE)
    score = assessor(bench, "accuracy>=-0.5pt")(GENES[0])
    assert "time static-int899.0" not in bench.asked
    assert score.misses["accuracy"] > 0
    assert "accuracy is 0.8900 where 0.8950 is asked" in score.told["missed"]


def test_a_recipe_that_fails_is_a_bad_score_with_its_reason() -> None:
    score = assessor(Bench(TABLE), "size<=50%")(GENES[2])
    assert score.values == FAILED
    assert score.told["error"] == "It has no such layer."


def test_time_being_up_is_no_failure_of_the_recipe() -> None:
    class Slow(Bench):
        def build(self, recipe: Pass) -> PassResult:
            raise OutOfTimeError("The time limit came.")

    with pytest.raises(OutOfTimeError):
        assessor(Slow(TABLE), "size<=50%")(GENES[0])


def test_a_recipe_that_takes_more_than_its_share_of_the_time_is_a_failed_one() -> None:
    class Slow(Bench):
        def build(self, recipe: Pass) -> PassResult:
            raise OutOfTimeError("The time limit came.")

    score = replace(assessor(Slow(TABLE), "size<=50%"), last_moment=math.inf)(GENES[0])
    assert score.values == FAILED
    assert "within its share of the time" in score.told["error"]


def test_the_same_recipe_is_measured_once() -> None:
    bench, done = Bench(TABLE), list[Finished]()
    assess = assessor(bench, "size<=50%", lambda: done)
    done.append(Finished(0, GENES[3], assess(GENES[3])))
    asked = len(bench.asked)
    again = assess({"numbers": 2, "static-int8.percentile": 2})
    assert len(bench.asked) == asked
    assert again.values == done[0].score.values
    assert again.told["again"] == 0


def test_the_front_holds_what_nothing_beats_within_the_budget() -> None:
    outcome = searched("size<=60%, accuracy>=-1pt")
    assert [(trial.name, trial.values[0]) for trial in outcome.pareto] == [
        ("static-int8-1", 0.4),
        ("static-int8-2", 0.5),
        ("fp16", 1.0),
    ]
    assert outcome.nearest is None
    assert "3 of 5 recipes meet the budget" in outcome.sentence


def test_the_budget_cuts_the_front() -> None:
    outcome = searched("size<=60%, accuracy>=-0.6pt")
    assert [trial.name for trial in outcome.pareto] == ["static-int8", "fp16"]


def test_an_unsatisfiable_budget_names_the_nearest_and_its_figures() -> None:
    outcome = searched("size<=25%, latency<=45%")
    assert outcome.pareto == ()
    assert outcome.nearest is not None
    assert outcome.nearest.name == "static-int8"
    assert outcome.sentence == (
        "None of 4 variants meets the budget size<=25%, latency<=45%; the nearest is static int8: "
        "size is 30.0% of the baseline's where 25.0% is asked (not timed, since that was enough to refuse "
        "it); more --trials or a longer --time-limit may find others."
    )


def test_a_search_in_which_everything_failed_says_why() -> None:
    bench = Bench({})
    score = assessor(bench, "size<=25%")(GENES[0])
    outcome = gather([Finished(0, GENES[0], score)], Budget.parse("size<=25%"), BASE, SPACE)
    assert outcome.sentence == "Nothing was found for the budget size<=25%: It has no such layer."


def test_a_front_that_is_too_long_is_thinned_out_evenly() -> None:
    outcome = searched("size<=60%, accuracy>=-1pt")
    assert [trial.name for trial in outcome.spread(2)] == ["static-int8-1", "fp16"]
    assert outcome.spread(5) == outcome.pareto
    assert [trial.name for trial in outcome.spread(1)] == ["static-int8-1"]
