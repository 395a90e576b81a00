"""Reading budgets, and telling by how much a variant misses one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.figures import Figures

BASE = Figures(
    size=1_000_000,
    quality={"accuracy": 0.9, "f1": 0.88, "agreement": 1.0},
    metric="accuracy",
    latency=0.010,
    macs=2e6,
    parameters=1000,
)


def variant(**changes: object) -> Figures:
    told = {"size": 250_000, "quality": {"accuracy": 0.89, "agreement": 0.97}, "metric": "accuracy"}
    return Figures(**{**told, "latency": 0.005, **changes})  # type: ignore[arg-type]


def test_the_budget_of_the_readme_is_met_exactly_at_its_bounds() -> None:
    budget = Budget.parse("latency<=50%, size<=25%, accuracy>=-1pt")
    assert budget.misses(variant(), BASE) == pytest.approx({"latency": 0, "size": 0, "accuracy": 0}, abs=1e-6)
    assert budget.shortfall(variant(), BASE) is None


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("latency<=5ms", 0.005),
        ("latency<=5000us", 0.005),
        ("latency <= 50 %", 0.005),
        ("latency≤0.5s", 0.5),
        ("size<=2MB", 2e6),
        ("size<=1MiB", 1048576),
        ("macs<=1.5M", 1.5e6),
        ("parameters<=50%", 500),
        ("accuracy>=-0.5pt", 0.895),
        ("accuracy>=99%", 0.891),
        ("accuracy>=0.85", 0.85),
        ("latency<50%", 0.005),
        ("latency=<50%", 0.005),
        ("accuracy>-0.5pt", 0.895),
        ("r2>=-0.5", -0.5),
        ("quality>=-1pt", 0.89),
        ("f1>=-1pt", 0.87),
        ("agreement>=98%", 0.98),
    ],
)
def test_each_unit_means_what_it_says(text: str, target: float) -> None:
    assert Budget.parse(text).bounds[0].target(BASE) == pytest.approx(target)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "budget is empty"),
        ("speed<=50%", "no axis 'speed'"),
        ("latency<=fast", "no bound that is a number"),
        ("latency", "no bound that is a number"),
        ("latency>=50%", "bounded with <="),
        ("accuracy<=0.9", "bounded with >="),
        ("latency<=50%, latency<=5ms", "latency twice"),
        ("latency<=5", "no unit"),
        ("latency<=5MB", "unit 'MB'"),
        ("size<=0%", "nothing can meet"),
        ("size<=-1MB", "nothing can meet"),
        ("accuracy>=99", "write 99%"),
        ("accuracy>=-0.5ms", "unit 'ms'"),
        ("accuracy>=-200pt", "100 points"),
        ("accuracy>=0%", "allows anything"),
        ("accuracy>=-1%", "write accuracy>=-1pt for points of difference, or accuracy>=99% for a share"),
        ("accuracy>=-100%", "allows anything"),
        ("accuracy>=-0.5", "write -0.5pt for points"),
        ("latency<=0.5", "such as latency<=50%"),
        ("latency>50%", "bounded with <="),
    ],
)
def test_a_malformed_budget_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        Budget.parse(text)


def test_bounds_are_divided_by_commas_or_semicolons() -> None:
    assert Budget.parse("size<=50%; latency<=50%").bounds == Budget.parse("size<=50%,latency<=50%").bounds


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("latency<=1ms", "latency is 5 ms where 1 ms is asked"),
        ("size<=1KB", "size is 0.25 MB where 1000 bytes is asked"),
        ("memory<=1MB", "memory is 3 MB where 1 MB is asked"),
        ("macs<=10%", "macs is 50.0% of the baseline's where 10.0% is asked"),
        ("parameters<=10", "parameters is 500 where 10 is asked"),
        ("accuracy>=99.5%", "accuracy is 0.8900 where 0.8955 is asked"),
        ("f1>=-1pt", "F1 is 0.8000 where 0.8700 is asked"),
        ("agreement>=0.99", "agreement is 0.9700 where 0.9900 is asked"),
        ("quality>=99.5%", "accuracy is 0.8900 where 0.8955 is asked"),
    ],
)
def test_the_shortfall_of_every_axis_is_told_with_its_figure(text: str, nearest: str) -> None:
    quality = {"accuracy": 0.89, "agreement": 0.97, "f1": 0.8}
    found = variant(memory=3e6, macs=1e6, parameters=500, quality=quality)
    assert Budget.parse(text).shortfall(found, replace(BASE, memory=4e6)) == nearest


def test_the_shortfall_names_every_missed_axis_with_figures() -> None:
    budget = Budget.parse("latency<=40%, size<=10%, accuracy>=-0.5pt")
    said = budget.shortfall(variant(), BASE)
    assert said is not None
    assert "latency is 50.0% of the baseline's where 40.0% is asked" in said
    assert "size is 25.0% of the baseline's where 10.0% is asked" in said
    assert "accuracy is 0.8900 where 0.8950 is asked" in said


def test_a_miss_of_cost_is_a_fraction_and_of_quality_ten_times_the_difference() -> None:
    misses = Budget.parse("size<=20%, accuracy>=-0.5pt").misses(variant(), BASE)
    assert misses["size"] == pytest.approx(0.25)
    assert misses["accuracy"] == pytest.approx(0.05, rel=1e-5)


def test_what_is_not_measured_yet_is_not_missed_yet() -> None:
    assert Budget.parse("latency<=1%, size<=50%").misses(variant(latency=None), BASE).keys() == {"size"}


def test_a_bound_on_what_cannot_be_known_of_a_variant_is_missed() -> None:
    budget = Budget.parse("macs<=50%")
    assert budget.misses(variant(macs=None), BASE) == {"macs": 1.0}
    assert budget.shortfall(variant(macs=None), BASE) == "macs was not measured"


def test_a_bound_on_what_the_data_do_not_have_is_refused() -> None:
    unlabelled = Figures(size=1, quality={"agreement": 1.0}, latency=0.1)
    with pytest.raises(RecipeError, match=r"bounds accuracy.*it may bound latency, size, quality, agreement"):
        Budget.parse("accuracy>=-1pt").check_measurable(unlabelled)


def test_a_budget_without_quality_gets_the_gates_bound() -> None:
    assert str(Budget.parse("size<=50%").completed("accuracy")) == "size<=50%, quality>=99%"
    assert str(Budget.parse("size<=50%").completed("agreement")) == "size<=50%, quality>=98%"
    kept = Budget.parse("accuracy>=-5pt")
    assert kept.completed("accuracy") is kept


def test_the_gate_gets_the_budgets_quality_and_size() -> None:
    limits = Budget.parse("size<=50%, accuracy>=-0.9pt, latency<=50%").limits(BASE)
    assert limits.max_bytes_ratio == pytest.approx(0.5)
    assert limits.max_drop == pytest.approx(0.01)
    assert limits.max_slowdown == pytest.approx(1.1)
    assert Budget.parse("latency<=150%").limits(BASE).max_slowdown == pytest.approx(1.5)


@given(st.floats(0.01, 3.0), st.floats(0.01, 3.0))
def test_a_variant_is_within_a_percentage_if_and_only_if_its_ratio_is(bound: float, ratio: float) -> None:
    budget = Budget.parse(f"latency<={bound * 100:.6f}%")
    missed = budget.misses(variant(latency=0.010 * ratio), BASE)["latency"] > 1e-5
    assert missed == (ratio > round(bound * 100, 6) / 100 * (1 + 1e-5))
