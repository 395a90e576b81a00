"""Studies: the same seed gives the same trials, also after a kill; another search is refused."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna")

from flyweight.compressor.search.extra import SearchError  # noqa: E402  # after the check that it can be
from flyweight.compressor.search.sampler_settings import SamplerSettings  # noqa: E402
from flyweight.compressor.search.space import Parameter  # noqa: E402
from flyweight.compressor.search.study import Finished, Score, Study, StudyPlace  # noqa: E402

PARAMETERS = (
    Parameter("kind", 3, ordered=False),
    Parameter("ratio", 8, ordered=True),
    Parameter("layers", 6, ordered=True),
)
Whole = Mapping[str, list[Finished]]
STARTERS = ({"kind": 0}, {"kind": 1, "ratio": 3})
SETTINGS = {"nsga2": SamplerSettings("nsga2", 3, 6), "tpe": SamplerSettings("tpe", 3, 6)}


def score(genes: Mapping[str, int]) -> Score:
    """Cost and loss pull apart; half of the space is forbidden."""
    cost = 1 - genes["ratio"] / 8 + 0.05 * genes["layers"]
    loss = (genes["ratio"] / 8) ** 2 / (1 + genes["kind"]) - 0.01 * genes["layers"]
    return Score((cost, 1 - 0.2 * genes["kind"], loss), {"loss": loss - 0.05}, {"recipe": str(dict(genes))})


def open_study(folder: Path, algorithm: str = "nsga2", **identity: str) -> Study:
    return Study(StudyPlace(folder), {"model": "a", **identity}, PARAMETERS, SETTINGS[algorithm], STARTERS)


def run(
    folder: Path,
    trials: int,
    algorithm: str = "nsga2",
    objective: Callable[[Mapping[str, int]], Score] = score,
) -> list[Finished]:
    study = open_study(folder, algorithm)
    try:
        study.run(objective, trials, lambda: False)
        return study.finished()
    finally:
        study.close()


def proposed(trials: list[Finished]) -> list[Mapping[str, int]]:
    return [trial.genes for trial in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The trials of uninterrupted searches; a shorter one has the first of them."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: run(folder / name, count, name) for name, count in (("nsga2", 40), ("tpe", 15))}


@pytest.mark.parametrize("algorithm", ["nsga2", "tpe"])
def test_a_search_that_was_cut_short_goes_on_as_if_it_had_not_been(
    tmp_path: Path, algorithm: str, whole: Whole
) -> None:
    for trials in (4, 10, 15):
        parts = run(tmp_path / "parts", trials, algorithm)
    assert proposed(parts) == proposed(whole[algorithm][:15])


@pytest.mark.parametrize("algorithm", ["nsga2", "tpe"])
@pytest.mark.parametrize("at", [1, 12])
def test_a_trial_that_is_interrupted_is_proposed_again_as_it_was(
    tmp_path: Path, algorithm: str, at: int, whole: Whole
) -> None:
    calls = iter(range(100))

    def interrupted(genes: Mapping[str, int]) -> Score:
        if next(calls) == at:
            raise KeyboardInterrupt
        return score(genes)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 15, algorithm, interrupted)
    assert proposed(run(tmp_path / "parts", 15, algorithm)) == proposed(whole[algorithm][:15])


def test_starters_come_first_and_the_rest_is_not_all_alike(whole: Whole) -> None:
    trials = proposed(whole["nsga2"][:20])
    assert trials[:2] == [{"kind": 0, "ratio": 0, "layers": 0}, {"kind": 1, "ratio": 3, "layers": 0}]
    assert len({tuple(genes.values()) for genes in trials}) > 12


def test_the_genetic_algorithm_leaves_the_forbidden_half(whole: Whole) -> None:
    trials = whole["nsga2"]
    met = [trial.score.misses["loss"] <= 0 for trial in trials]
    assert sum(met[24:]) > sum(met[:16])


def test_another_seed_gives_other_trials(tmp_path: Path, whole: Whole) -> None:
    other = Study(
        StudyPlace(tmp_path / "b"), {"model": "a"}, PARAMETERS, SamplerSettings("nsga2", 4, 6), STARTERS
    )
    other.run(score, 10, lambda: False)
    assert proposed(other.finished()) != proposed(whole["nsga2"][:10])
    other.close()


@pytest.mark.parametrize(
    ("identity", "word"), [({"model": "b"}, "model"), ({"budget": "size<=1%"}, "budget")]
)
def test_a_study_of_something_else_is_refused_in_one_sentence(
    tmp_path: Path, identity: dict[str, str], word: str
) -> None:
    open_study(tmp_path, budget="size<=2%").close()
    with pytest.raises(SearchError, match=f"was made for another {word}; name another study, or remove it."):
        open_study(tmp_path, **{"budget": "size<=2%", **identity})


def test_a_study_with_another_seed_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path).close()
    with pytest.raises(SearchError, match="another search"):
        Study(StudyPlace(tmp_path), {"model": "a"}, PARAMETERS, SamplerSettings("nsga2", 9, 6))


def test_a_refused_study_can_be_opened_by_its_owner_again(tmp_path: Path) -> None:
    open_study(tmp_path).close()
    with pytest.raises(SearchError):
        open_study(tmp_path, model="b")
    assert run(tmp_path, 3)


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(SearchError, match=r"study\.db cannot be opened .*; remove that file to begin anew"):
        open_study(tmp_path)


@pytest.mark.parametrize("url", ["mysql://somebody:secret@host/db", "somewhere"])
def test_another_kind_of_database_is_refused_without_telling_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(SearchError, match="write postgresql://") as caught:
        Study(StudyPlace(tmp_path, url), {}, PARAMETERS, SETTINGS["nsga2"])
    assert "secret" not in str(caught.value)


def test_an_unreachable_database_is_refused_without_telling_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    place = StudyPlace(tmp_path, "postgresql://somebody:secret@127.0.0.1:1/db")
    with pytest.raises(SearchError, match=r"cannot be opened .*; check that the database runs") as caught:
        Study(place, {}, PARAMETERS, SETTINGS["nsga2"])
    assert "secret" not in str(caught.value)


def die_in_a_trial(folder: Path) -> None:
    """Leave what a killed process leaves: a running trial with its genes."""
    study = open_study(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = study._study.ask()
    trial.suggest_categorical("kind", range(3))
    trial.suggest_int("ratio", 0, 7)
    trial.suggest_int("layers", 0, 5)
    study.close()


def test_two_deaths_of_the_same_genes_end_in_a_bad_score(tmp_path: Path) -> None:
    """A trial that kills its process, for want of memory say, must not kill every resumed search as well."""
    for _ in range(2):
        die_in_a_trial(tmp_path)
    first, second = run(tmp_path, 2)
    assert first.score.told["error"].startswith("It was not measured: its process died twice")
    assert first.genes == {"kind": 0, "ratio": 0, "layers": 0}
    assert "error" not in second.score.told


def test_a_trial_whose_process_died_once_is_repeated(tmp_path: Path, whole: Whole) -> None:
    run(tmp_path / "parts", 4)
    die_in_a_trial(tmp_path / "parts")
    assert proposed(run(tmp_path / "parts", 9)) == proposed(whole["nsga2"][:9])


def test_the_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living = open_study(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        living._study.ask()
    other = open_study(tmp_path)
    assert len(other._trials("RUNNING")) == 1
    other.close()
    living.close()


def test_the_first_to_ask_makes_what_the_study_remembers(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    assert study.remember("layers", lambda: [["a"], ["b"]]) == [["a"], ["b"]]
    study.close()
    again = open_study(tmp_path)
    assert again.remember("layers", lambda: 0) == [["a"], ["b"]]
    again.close()


def test_optuna_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 3)
    assert capfd.readouterr() == ("", "")


def test_of_two_that_begin_the_last_trial_at_once_one_stands_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = open_study(tmp_path), open_study(tmp_path)
    begin, tried = optuna.Study.optimize, list[Mapping[str, int]]()

    def overtaken(study: object, *arguments: object, **named: object) -> None:
        monkeypatch.setattr(optuna.Study, "optimize", begin)
        early.run(score, 2, lambda: False)
        begin(study, *arguments, **named)

    def noted(genes: Mapping[str, int]) -> Score:
        tried.append(genes)
        return score(genes)

    monkeypatch.setattr(optuna.Study, "optimize", overtaken)
    late.run(noted, 2, lambda: False)
    assert len(late.finished()) == 2
    assert not tried
    late.close()
    early.close()
