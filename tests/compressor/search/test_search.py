"""The whole search on a small network, without training."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

from flyweight.compressor.caching import Cache  # after the check that it can be
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.bench import BenchSettings
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form, Pass, PassResult, PassSequence
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.building import Builder
from flyweight.compressor.search.choices import default_space
from flyweight.compressor.search.extra import SearchError
from flyweight.compressor.search.measuring import quiet_machine
from flyweight.compressor.search.outcome import SearchOutcome, SearchStopped
from flyweight.compressor.search.search import SearchData, SearchSettings, search
from flyweight.compressor.search.sensitivity import measure_sensitivity
from flyweight.compressor.search.space import make_pass
from flyweight.compressor.search.study import StudyPlace

Digits = tuple[Path, DataSet]
SPACE = default_space(Form.ONNX, trains=False)


BUDGET = Budget.parse("size<=60%, accuracy>=-2pt")


def context_in(folder: Path, data: DataSet) -> Context:
    (folder / "work").mkdir()
    return Context(workspace=folder / "work", calibration=data.first(64))


def settings_in(folder: Path) -> SearchSettings:
    return SearchSettings(
        trials=7,
        study=StudyPlace(folder / "study"),
        cache=Cache(folder / "cache"),
        bench=BenchSettings(seconds_per_point=0.02),
        keep=2,
    )


@pytest.fixture
def context(tmp_path: Path, digits: Digits) -> Context:
    return context_in(tmp_path, digits[1])


@pytest.fixture
def settings(tmp_path: Path) -> SearchSettings:
    return settings_in(tmp_path)


@dataclass(frozen=True)
class Searched:
    """A search that is done, and how it was asked for."""

    outcome: SearchOutcome
    context: Context
    settings: SearchSettings


@pytest.fixture(scope="module")
def searched(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    path, data = digits
    folder = tmp_path_factory.mktemp("searched")
    context, settings = context_in(folder, data), settings_in(folder)
    outcome = search(Model(path=path), BUDGET, SearchData.of(data), context, settings, SPACE)
    return Searched(outcome, context, settings)


def test_a_budget_of_size_is_met_and_verified_on_other_data(searched: Searched) -> None:
    outcome = searched.outcome
    assert 1 <= len(outcome.pareto) <= 2
    assert outcome.reference is not None
    for trial in outcome.pareto:
        assert trial.path is not None
        assert trial.path.exists()
        assert trial.verified is not None
        assert trial.verified.quality.samples == 300
        assert trial.verified.file_bytes <= 0.6 * outcome.reference.file_bytes
    assert len({trial.text for trial in outcome.tried}) == len(outcome.tried)


def test_the_second_search_goes_on_and_builds_nothing_anew(
    digits: Digits, searched: Searched, tmp_path: Path
) -> None:
    path, data = digits
    told: list[tuple[str, int, int]] = []
    other = replace(searched.context, workspace=tmp_path, progress=lambda *said: told.append(said))
    second = search(Model(path=path), BUDGET, SearchData.of(data), other, searched.settings, SPACE)
    assert [trial.values for trial in second.tried] == [trial.values for trial in searched.outcome.tried]
    assert ("trials", 7, 7) in told
    assert not list((tmp_path / "search").glob("*static-int8*"))


def test_an_unsatisfiable_budget_says_which_was_the_nearest(
    digits: Digits, context: Context, settings: SearchSettings
) -> None:
    path, data = digits
    outcome = search(
        Model(path=path), Budget.parse("size<=1%"), SearchData.of(data), context, settings, SPACE
    )
    assert outcome.pareto == ()
    assert "the nearest is" in outcome.sentence
    assert "where 1.0% is asked" in outcome.sentence


def test_a_study_of_other_data_is_refused(digits: Digits, context: Context, settings: SearchSettings) -> None:
    path, data = digits
    settings = replace(settings, trials=1)
    search(Model(path=path), Budget.parse("size<=60%"), SearchData.of(data), context, settings, SPACE)
    with pytest.raises(SearchError, match="made for another data set"):
        search(
            Model(path=path), Budget.parse("size<=60%"), SearchData.of(data, seed=1), context, settings, SPACE
        )
    with pytest.raises(SearchError, match="made for another budget"):
        search(Model(path=path), Budget.parse("size<=50%"), SearchData.of(data), context, settings, SPACE)


def test_a_budget_that_cannot_be_measured_is_refused_before_anything_is_tried(
    digits: Digits, context: Context, settings: SearchSettings
) -> None:
    path, data = digits
    unlabelled = SearchData.of(DataSet(data.inputs))
    with pytest.raises(RecipeError, match="bounds accuracy"):
        search(Model(path=path), Budget.parse("accuracy>=-1pt"), unlabelled, context, settings, SPACE)


def test_ctrl_c_tells_what_was_found_and_the_study_can_be_gone_on_with(
    digits: Digits, context: Context, settings: SearchSettings
) -> None:
    path, data = digits
    budget, halves, settings = Budget.parse("size<=60%"), SearchData.of(data), replace(settings, trials=4)

    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("trials", 3):
            raise KeyboardInterrupt

    with pytest.raises(SearchStopped) as caught:
        search(Model(path=path), budget, halves, replace(context, progress=interrupt), settings, SPACE)
    assert len(caught.value.outcome.tried) == 3
    outcome = search(Model(path=path), budget, halves, context, settings, SPACE)
    assert [t.text for t in outcome.tried[:3]] == [t.text for t in caught.value.outcome.tried]


def test_a_search_without_time_ends_with_what_it_has(
    digits: Digits, context: Context, settings: SearchSettings
) -> None:
    path, data = digits
    late = replace(context, deadline=0.0)
    outcome = search(Model(path=path), Budget.parse("size<=60%"), SearchData.of(data), late, settings, SPACE)
    assert outcome.tried == ()
    assert "no trial was finished in time" in outcome.sentence


@pytest.mark.torch
def test_a_training_takes_no_more_than_its_share_and_what_is_quick_may_take_all(
    digits: Digits, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    path, _ = digits
    given: list[float] = []

    def record(_memo: Memo, _recipe: Pass, source: Model, context: Context) -> PassResult:
        given.append(context.remaining_seconds())
        return PassResult(source, changed=True)

    monkeypatch.setattr(Memo, "apply", record)
    taught = replace(context, baseline=object())
    builder = Builder(Model(path=path), taught, Cache(tmp_path / "cache"))
    builder.until(time.monotonic() + 1000, 0.25)
    builder.build(
        PassSequence([make_pass("import", {}), make_pass("fine-tune", {}), make_pass("export", {})])
    )
    builder.build(make_pass("fp16", {}))
    assert given == pytest.approx([250, 1000], abs=50)


def test_sensitive_layers_come_first(digits: Digits, context: Context) -> None:
    path, _ = digits
    groups = measure_sensitivity(path, context, groups=3)
    assert sorted(name for group in groups for name in group) == ["gemm0", "gemm1", "gemm2"]
    assert len(groups) == 3


def test_one_sample_serves_both_purposes(rows: Callable[..., DataSet]) -> None:
    one = rows(1, x=(4,))
    assert SearchData.of(one) == SearchData(one, one)
    halves = SearchData.of(rows(10, x=(4,)))
    both = np.concatenate([halves.judging.inputs["x"], halves.verification.inputs["x"]])
    assert len(np.unique(both, axis=0)) == 10


def test_only_one_measures_at_a_time() -> None:
    entered, inside = threading.Event(), list[str]()

    def other() -> None:
        entered.set()
        with quiet_machine():
            inside.append("other")

    with quiet_machine():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(10)
        inside.append("first")
    thread.join(10)
    assert inside == ["first", "other"]


def test_sensitivity_leaves_the_time_to_the_trials(
    digits: Digits, context: Context, settings: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = digits
    given: list[float] = []

    def measure(_path: Path, context: Context, *_others: object) -> list[list[str]]:
        given.append(context.remaining_seconds())
        return [["gemm0"], ["gemm1"]]

    monkeypatch.setattr("flyweight.compressor.search.search.remembered", measure)
    limited = replace(context, deadline=time.monotonic() + 1000)
    search(
        Model(path=path),
        Budget.parse("size<=60%"),
        SearchData.of(data),
        limited,
        replace(settings, trials=1),
    )
    assert len(given) == 1
    assert 0 < given[0] <= 100
