"""Search: from a budget to the recipes on the Pareto front that meet it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flyweight.compressor.caching import Cache, default_folder
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import CompressorError, OutOfTimeError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.served import servable
from flyweight.compressor.model import Model
from flyweight.compressor.options import TRIALS
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.building import Builder
from flyweight.compressor.search.choices import default_space
from flyweight.compressor.search.favourites import Traits, is_cuttable, is_transformer, operators_of
from flyweight.compressor.search.figures import figures_of
from flyweight.compressor.search.measuring import VariantMeter, quiet_machine
from flyweight.compressor.search.outcome import SearchOutcome, SearchStopped, Trial, gather
from flyweight.compressor.search.sampler_settings import SamplerSettings
from flyweight.compressor.search.sensitivity import remembered
from flyweight.compressor.search.space import Space
from flyweight.compressor.search.study import Study, StudyPlace
from flyweight.compressor.search.trials import Assessor

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

# What is kept of the user's time to build, if need be, and measure the best ones on data not yet seen.
_VERIFYING_SHARE: Final = 0.15
# Which layers are sensitive makes some trials better; the first ones do not need it.
_SENSITIVITY_SHARE: Final = 0.1
# Of the time that is left for trials: a training that would take longer plans fewer epochs, and the others
# get their turn.
_TRAINING_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class SearchData:
    """Samples to judge on: those the search sees, and those that only its best variants are measured on.

    The best of many by one data set is in part the luckiest on it; only the second figure is its own. Where
    a user keeps data for judging alone, all of them judge: samples that the model was trained on cannot take
    their place, since it knows them by heart and every retrained variant would seem worse than it is.
    """

    judging: DataSet
    verification: DataSet

    @classmethod
    def of(cls, evaluation: DataSet, seed: int = 0, *, whole: bool = False) -> "SearchData":
        """Split an evaluation set in two halves; of a single sample both have it.

        Args:
            evaluation: what there is to judge on.
            seed: of the split.
            whole: verify on all of it, the half that the search sees included.
        """
        if evaluation.samples < 2:
            return cls(evaluation, evaluation)
        judging, verification = evaluation.split(0.5, seed)
        return cls(judging, evaluation if whole else verification)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a search is done.

    Attributes:
        trials: to finish; fewer when the context's deadline comes first.
        sampler: how recipes are proposed.
        workers: processes on this machine. With more than one, who finishes first decides what the next
            generation knows, so the same seed need not give the same trials.
        study: where trials are kept; None takes a folder of the context's workspace, which is not resumable.
        bench: how variants are measured.
        cache: of what recipes made; None takes the user's own.
        max_drop: of the quality, relative, where the budget does not say; None takes the gate's default.
        keep: finished trials on the Pareto front that are verified at most, spread over it.
    """

    trials: int = TRIALS
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    workers: int = 1
    study: StudyPlace | None = None
    bench: BenchSettings = field(default_factory=BenchSettings)
    cache: Cache | None = None
    max_drop: float | None = None
    keep: int = 6


def search(
    source: Model,
    budget: Budget,
    data: SearchData,
    context: "Context",
    settings: SearchSettings | None = None,
    space: Space | None = None,
) -> SearchOutcome:
    """Look for recipes that meet a budget, and return those that nothing tried is better than on every axis.

    The same seed, data, machine and number of trials give the same proposals as long as measurements agree,
    also when the search was killed in between and goes on.

    Args:
        source: an ONNX file or a torch module.
        budget: what is asked.
        data: to judge on.
        context: calibration and training data, workspace, seed, threads, deadline, progress.
        settings: how to search.
        space: the recipes to choose from; None takes those that suit the model.

    Raises:
        SearchError: the study cannot be opened or holds another search.
        RecipeError: the budget bounds what cannot be measured.
        ModelError: the model cannot be run.
        SearchStopped: Ctrl-C; it carries what was found until then, and the study can be gone on with.
    """
    settings = settings or SearchSettings()
    hunt = Hunt(source, budget, data, context, settings)
    try:
        hunt.prepare(space)
        try:
            if settings.workers > 1:
                hunt.run_workers()
            else:
                hunt.run()
        except KeyboardInterrupt:
            raise SearchStopped(hunt.outcome()) from None
        return hunt.verified()
    finally:
        hunt.close()


class Hunt:
    """One process's part in a search; used from one thread."""

    def __init__(
        self, source: Model, budget: Budget, data: SearchData, context: "Context", settings: SearchSettings
    ) -> None:
        self.source, self.data, self.settings = source, data, settings
        self.budget = budget
        self.context = context
        self.cache = settings.cache or Cache(default_folder())
        self.builder = Builder(source, context, self.cache)
        self.place = settings.study or StudyPlace(context.workspace / "study")
        self._study: Study | None = None

    @property
    def study(self) -> Study:
        """The open study."""
        assert self._study is not None, "prepare() opens it"
        return self._study

    def prepare(self, space: Space | None) -> None:
        """Measure the baseline, learn which layers are sensitive, open the study."""
        self.baseline = self.builder.baseline()
        memory = any(bound.axis == "memory" for bound in self.budget.bounds)
        self.meter = VariantMeter(
            self.baseline,
            self.data.judging,
            self.context.new_path("answers").parent,
            self.settings.bench,
            memory=memory,
            progress=self.context.progress,
        )
        self.budget = self.budget.completed(self.meter.baseline.metric, self.settings.max_drop)
        self.budget.check_measurable(self.meter.baseline)
        self.space = space or self._default_space()
        self._study = Study(
            self.place,
            self._identity(),
            self.space.parameters(),
            self.settings.sampler,
            self.space.starters(),
        )

    def run(self, orphaned: Callable[[], bool] = lambda: False) -> None:
        """Try recipes until there are enough, the time is up, or nobody waits for them any more."""
        last = self._last_moment()
        assess = Assessor(
            self.space, self.budget, self.builder, self.meter, self.study.finished, last_moment=last
        )

        self.builder.until(last, _TRAINING_SHARE)

        def up() -> bool:
            self.tell_progress()
            return orphaned() or time.monotonic() >= last

        try:
            self.study.run(assess, self.settings.trials, up)
        except OutOfTimeError:
            return  # what was finished is in the study

    def run_workers(self) -> None:
        """Let processes of their own try recipes, and wait for them."""
        from flyweight.compressor.search.workers import work_together

        work_together(self, self._last_moment())

    def outcome(self) -> SearchOutcome:
        """Return what was found so far, measured on what the search saw."""
        return gather(self.study.finished(), self.budget, self.meter.baseline, self.space)

    def verified(self) -> SearchOutcome:
        """Return what was found, the best ones measured again on what the search did not see."""
        outcome = self.outcome()
        if not outcome.pareto:
            return outcome
        self.builder.until(self.context.deadline)
        folder = self.context.new_path("verification").parent
        bench = Bench(
            self.baseline, self.data.verification, folder, self.settings.bench, self.context.progress
        )
        with quiet_machine():
            measured = bench.measure_baseline()
        base, kept = figures_of(measured), list[Trial]()
        for done, trial in enumerate(outcome.spread(self.settings.keep)):
            self.context.progress("verifying", done, min(len(outcome.pareto), self.settings.keep))
            try:
                self.context.check_time()
                assert trial.recipe is not None, "the front holds recipes"
                made = self.builder.build(trial.recipe)
                assert made.model.path is not None, "recipes of a space end in a file"
                running, stored = servable(made.model.path)
                with quiet_machine():
                    found = bench.measure(running, stored)
                missed = self.budget.shortfall(figures_of(found), base)
                kept.append(replace(trial, path=made.model.path, verified=found, missed=missed))
            except CompressorError as error:
                kept.append(replace(trial, missed=f"It was not verified: {error}"))
        return outcome.after_verification(tuple(kept), measured)

    def tell_progress(self) -> None:
        """Say how many trials are done."""
        self.context.progress("trials", len(self.study.finished()), self.settings.trials)

    def close(self) -> None:
        """Leave the study."""
        if self._study is not None:
            self._study.close()

    def _last_moment(self) -> float:
        """Return when no other trial is begun: some time is left for verifying."""
        left = self.context.remaining_seconds()
        return time.monotonic() + (1 - _VERIFYING_SHARE) * left

    def _default_space(self) -> Space:
        context = self.context
        known = {"model": self.builder.digest, "calibration": context.calibration.digest}
        corner = replace(context.within(_SENSITIVITY_SHARE), workspace=self._corner())
        groups = remembered(self.baseline, corner, self.cache.folder, known)
        operators = operators_of(self.baseline)
        learns = is_cuttable(operators) and context.training is not None
        return default_space(
            self.source.form, groups, traits=Traits(is_transformer(operators), learns=learns)
        )

    def _corner(self) -> Path:
        return self.context.new_path("sensitivity").parent

    def _identity(self) -> Mapping[str, str]:
        context = self.context
        training = context.training.digest if context.training is not None else "none"
        return {
            "model": self.builder.digest,
            "data set": f"{self.data.judging.digest} {context.calibration.digest} {training}",
            "budget": str(self.budget),
            "search space": self.space.digest(),
            "seed": str(context.seed),
        }
