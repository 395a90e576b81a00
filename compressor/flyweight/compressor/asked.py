"""From a budget to candidates: the search's best recipes, and what to say of all that was tried."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flyweight.compressor.caching import Cache, default_folder, key_of
from flyweight.compressor.candidates import Candidate
from flyweight.compressor.context import Context
from flyweight.compressor.division import Division
from flyweight.compressor.evaluate.bench import BenchSettings
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.model import Model
from flyweight.compressor.options import Options
from flyweight.compressor.passes.base import PassResult
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.extra import SearchError
from flyweight.compressor.search.figures import figures_of
from flyweight.compressor.sessions import SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.search.outcome import SearchOutcome, Trial
    from flyweight.compressor.search.study import StudyPlace

# Of the time that the user gives: the rest examines and publishes what was found.
_SEARCHING_SHARE: Final = 0.8
_STUDIES: Final = "studies"
# On one machine no sign of life is late by this much, and the last trials wait for those of a killed worker.
_HEARTBEAT_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has to do: what a search found, or what the user named.

    Attributes:
        candidates: the recipes, of a search those that meet the budget, fastest first.
        division: after a search its evaluation data are those that the search did not see; all of them where
            there is training data.
        limits: what a variant may cost, by the budget or the options.
        document: everything that a search tried, in the types that JSON has; None where none was asked for.
    """

    candidates: tuple[Candidate, ...]
    division: Division
    limits: Limits
    document: dict[str, Any] | None = None


def search_for(
    budget: Budget, source: Model, context: Context, division: Division, options: Options
) -> Found:
    """Search recipes that meet a budget.

    Raises:
        SearchError: nothing meets it, told with what came nearest; or the study cannot be used.
        RecipeError: the budget bounds what cannot be measured here.
        KeyboardInterrupt: Ctrl-C; finished trials are in the study, and the same call goes on with them.
    """
    from flyweight.compressor.search.search import SearchData, SearchSettings, search

    whole = options.training is not None
    data = SearchData.of(division.evaluation, options.seed, whole=whole)
    folder = options.work_folder or default_folder()
    bench = BenchSettings(
        session=SessionSettings(threads=options.threads),
        seconds_per_point=options.seconds_per_point,
        output=options.output,
        agreement=options.agreement,
        evaluation=EvaluationSettings.quick(),
    )
    settings = SearchSettings(
        trials=options.trials,
        workers=options.workers,
        study=_study(budget, source, context, options, folder),
        bench=bench,
        cache=Cache(folder / "cache"),
        max_drop=options.limits.max_drop,
    )
    outcome = search(source, budget, data, context.within(_SEARCHING_SHARE), settings)
    if not outcome.pareto:
        raise SearchError(outcome.sentence)
    candidates = tuple(
        Candidate(trial.name, trial.recipe, made=_made(trial))
        for trial in outcome.pareto
        if trial.recipe is not None and trial.path is not None and trial.missed is None
    )
    told = (
        f"The search compared recipes on {data.judging.samples} of the {division.evaluation.samples} samples "
    )
    told += "of --data; all of them judge." if whole else "that judge; the figures are of the others."
    judged = replace(division, evaluation=data.verification, notes=(*division.notes, told, outcome.sentence))
    assert outcome.reference is not None, "a search with a front ends in verification"
    limits = outcome.budget.limits(figures_of(outcome.reference))
    return Found(candidates, judged, limits, _document(outcome))


def _study(budget: Budget, source: Model, context: Context, options: Options, folder: Path) -> "StudyPlace":
    """Return where trials are kept: a database that several share, or a file that this search finds again."""
    from flyweight.compressor.search.building import digest_of
    from flyweight.compressor.search.choices import default_space
    from flyweight.compressor.search.favourites import Traits
    from flyweight.compressor.search.study import StudyPlace

    training = context.training.digest if context.training is not None else ""
    parts = {
        "model": digest_of(source),
        "budget": str(budget),
        "data": [context.calibration.digest, training],
        "seed": options.seed,
        "threads": options.threads,
        # Another version tries other things; nobody who named no study should be told of an old one.
        "space": default_space(source.form, traits=Traits(attends=True, learns=True)).digest(),
    }
    own = folder / _STUDIES / key_of(parts)[:32]
    if options.study is not None:
        return StudyPlace(own, options.study)
    return StudyPlace(own, heartbeat_seconds=_HEARTBEAT_SECONDS)


def _made(trial: "Trial") -> PassResult:
    """Return the file that was verified: made again, a training might end otherwise for want of time."""
    return PassResult(Model(path=trial.path), changed=True, notes=trial.notes)


def _document(outcome: "SearchOutcome") -> dict[str, Any]:
    return {
        "budget": str(outcome.budget),
        "sentence": outcome.sentence,
        "trials": [_describe(trial) for trial in outcome.tried],
    }


def _describe(trial: "Trial") -> dict[str, Any]:
    latency: float | None
    latency, size, lost = trial.values if trial.figures is not None else (None, None, None)
    if trial.figures is not None and trial.figures.latency is None:
        latency = None  # what misses the budget by size or quality is not timed
    return {
        "number": trial.number,
        "kind": trial.kind,
        "recipe": trial.text,
        "latency_share": latency,
        "size_share": size,
        "quality_lost": lost,
        "missed": trial.missed,
        "error": trial.error,
        "seconds": round(trial.seconds, 2),
    }
