"""What a search came to: every trial, the Pareto front of those that meet the budget, and the nearest one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.compressor.passes.base import Pass
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.figures import Figures
from flyweight.compressor.search.study import Finished

if TYPE_CHECKING:
    from flyweight.compressor.evaluate.evaluation import Evaluation
    from flyweight.compressor.search.space import Space


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        number: in the study.
        name: that its variant may have; of trials on the Pareto front no two are alike.
        recipe: None where the genes leave the model as it is.
        text: the recipe as YAML.
        kind: what it does, in a few words.
        figures: on the data the search saw; None where it could not be made.
        values: latency and size as fractions of the baseline's, and the quality lost.
        miss: sum of what is missed of the budget's bounds; 0 where all are met.
        missed: the same in words; None where all are met. After verification, by the figures of that.
        error: why it could not be made or measured.
        notes: sentences of the passes.
        path: its file, of trials that were verified.
        verified: everything that was measured on data the search did not see.
        seconds: that making and measuring it took.
    """

    number: int
    name: str
    recipe: Pass | None
    text: str
    kind: str
    figures: Figures | None
    values: tuple[float, float, float]
    miss: float
    missed: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    path: Path | None = None
    verified: "Evaluation | None" = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What a search came to.

    Attributes:
        budget: what was asked, with the bound on quality that was added where it had none.
        baseline: the original's figures on the data the search saw.
        pareto: trials that meet the budget and that no other is better than on every axis, fastest first.
        tried: all trials, by number; a recipe that came up again is told once.
        nearest: the trial that misses the budget by least; None where one meets it, or none was measured.
        reference: the baseline on data the search did not see; None before verification.
        refused: trials that met the budget on what the search saw, and not on what it did not.
    """

    budget: Budget
    baseline: Figures
    pareto: tuple[Trial, ...]
    tried: tuple[Trial, ...]
    nearest: Trial | None = None
    reference: "Evaluation | None" = None
    refused: tuple[Trial, ...] = field(default=())

    @property
    def sentence(self) -> str:
        """Say what came of it, and where nothing meets the budget, how far the nearest is from it."""
        made = sum(trial.error is None for trial in self.tried)
        if self.pareto:
            return (
                f"{len(self.pareto)} of {len(self.tried)} recipes meet the budget {self.budget} and are best."
            )
        if self.nearest is None:
            reason = next(
                (trial.error for trial in self.tried if trial.error),
                "no trial was finished in time; give more with --time-limit.",
            )
            return f"Nothing was found for the budget {self.budget}: {reason}"
        return (
            f"None of {made} variants meets the budget {self.budget}; the nearest is {self.nearest.kind}: "
            f"{self.nearest.missed}{self._untimed(self.nearest)}; more --trials or a longer --time-limit may "
            "find others."
        )

    def _untimed(self, trial: Trial) -> str:
        """Say so of a trial that size or quality refused before it was timed, where latency is asked for."""
        asks = any(bound.axis == "latency" for bound in self.budget.bounds)
        timed = trial.figures is not None and trial.figures.latency is not None
        return " (not timed, since that was enough to refuse it)" if asks and not timed else ""

    def spread(self, count: int) -> tuple[Trial, ...]:
        """Return at most `count` of the front, evenly spread over it, its ends among them."""
        if len(self.pareto) <= count:
            return self.pareto
        places = (
            [round(place * (len(self.pareto) - 1) / (count - 1)) for place in range(count)]
            if count > 1
            else [0]
        )
        return tuple(self.pareto[place] for place in places)

    def after_verification(self, measured: tuple[Trial, ...], reference: "Evaluation") -> "SearchOutcome":
        """Return the outcome with those trials only that meet the budget on both data sets."""
        good = tuple(trial for trial in measured if trial.missed is None)
        bad = tuple(trial for trial in measured if trial.missed is not None)
        nearest = None if good else next(iter(bad), self.nearest)
        return replace(self, pareto=good, refused=bad, nearest=nearest, reference=reference)


class SearchStopped(KeyboardInterrupt):
    """The user pressed Ctrl-C; `outcome` is what was found, not yet verified."""

    def __init__(self, outcome: SearchOutcome) -> None:
        super().__init__("The search was stopped; the same command goes on with its study.")
        self.outcome = outcome


def gather(finished: Sequence[Finished], budget: Budget, baseline: Figures, space: "Space") -> SearchOutcome:
    """Return what the finished trials of a study come to."""
    seen, tried = set[str](), list[Trial]()
    for done in finished:
        text = str(done.score.told.get("recipe", f"trial {done.number}"))
        if text not in seen:
            seen.add(text)
            tried.append(_trial(done, budget, baseline, space))
    changed = [trial for trial in tried if trial.recipe is not None and trial.error is None]
    good = [trial for trial in changed if trial.miss == 0 and trial.figures and trial.figures.latency]
    front = sorted((trial for trial in good if not _beaten(trial, good)), key=lambda trial: trial.values)
    nearest = min(changed, key=lambda trial: (trial.miss, trial.values), default=None)
    return SearchOutcome(budget, baseline, _named(front), tuple(tried), None if front else nearest)


def _trial(done: Finished, budget: Budget, baseline: Figures, space: "Space") -> Trial:
    told = done.score.told
    figures = Figures(**told["figures"]) if "figures" in told else None
    misses = budget.misses(figures, baseline).values() if figures else done.score.misses.values()
    error = told.get("error")
    return Trial(
        number=done.number,
        name="-".join(told.get("taken", ())) or "as-is",
        recipe=None if error else space.recipe(done.genes),
        text=str(told.get("recipe", "")),
        kind=str(told.get("kind", "")),
        figures=figures,
        values=done.score.values,
        miss=sum(miss for miss in misses if miss > 0),
        missed=budget.shortfall(figures, baseline) if figures else None,
        error=error,
        notes=tuple(told.get("notes", ())),
        seconds=float(told.get("seconds", 0.0)),
    )


def _beaten(trial: Trial, others: Sequence[Trial]) -> bool:
    """Return whether another is at least as good on every axis and better on one (Pareto dominance)."""
    return any(
        all(theirs <= ours for theirs, ours in zip(other.values, trial.values, strict=True))
        and other.values != trial.values
        for other in others
    )


def _named(front: Sequence[Trial]) -> tuple[Trial, ...]:
    """Number those that do the same kind of thing, the fastest first."""
    counts, seen = Counter(trial.name for trial in front), Counter[str]()
    named = []
    for trial in front:
        seen[trial.name] += 1
        name = f"{trial.name}-{seen[trial.name]}" if counts[trial.name] > 1 else trial.name
        named.append(replace(trial, name=name))
    return tuple(named)
