"""What a search does with one proposal: make it, look at what is cheap to see, time it if it may pass."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from flyweight.compressor.errors import CompressorError, OutOfTimeError
from flyweight.compressor.passes.base import Pass, PassResult
from flyweight.compressor.recipe import dump_recipe, kind_of
from flyweight.compressor.search.budget import METRICS, Budget
from flyweight.compressor.search.figures import Figures
from flyweight.compressor.search.measuring import Meter
from flyweight.compressor.search.study import Finished, Score

if TYPE_CHECKING:
    from flyweight.compressor.search.space import Genes, Space

# What a variant that could not be made or measured counts as: worse than anything that could.
FAILED: Final = (10.0, 10.0, 1.0)
_TOO_LONG: Final = (
    "It was not done within its share of the time, which leaves some for others; give more with --time-limit."
)


class Maker(Protocol):
    """Someone who makes variants."""

    def build(self, recipe: Pass) -> PassResult:
        """Return what the recipe makes of the model."""
        raise NotImplementedError

    def tidy(self) -> None:
        """Forget files that are not needed any more."""


@dataclass(frozen=True, slots=True)
class Assessor:
    """Turns genes into a score; used from one thread.

    Attributes:
        space: what the genes mean.
        budget: what is asked.
        maker: makes the variants.
        meter: measures them.
        earlier: the trials that are done, where the same recipe may have been tried already.
        last_moment: by `time.monotonic()`, when the user's time for trials is up; one that ran out of its own
            share before that is a failed one.
    """

    space: "Space"
    budget: Budget
    maker: Maker
    meter: Meter
    earlier: Callable[[], Sequence[Finished]]
    last_moment: float = -math.inf

    def __call__(self, genes: "Genes") -> Score:
        """Return how good the recipe of these genes is; a failure of the recipe is a bad score.

        Raises:
            OutOfTimeError: the user's time is up.
        """
        started = time.monotonic()
        told: dict[str, Any] = {"taken": list(self.space.taken(genes))}
        try:
            recipe = self.space.recipe(genes)
            told["recipe"] = "" if recipe is None else dump_recipe("trial", recipe)
            told["kind"] = "original" if recipe is None else kind_of(recipe)
            for other in self.earlier():
                if other.score.told.get("recipe") == told["recipe"]:
                    return Score(
                        other.score.values, other.score.misses, {**other.score.told, "again": other.number}
                    )
            found = self.meter.baseline if recipe is None else self._measured(recipe, told)
        except CompressorError as error:
            if isinstance(error, OutOfTimeError):
                if time.monotonic() >= self.last_moment:
                    raise
                error = OutOfTimeError(_TOO_LONG)
            told |= {"error": str(error), "seconds": round(time.monotonic() - started, 3)}
            return Score(FAILED, {"made": 1.0}, told)
        told |= {"figures": found.document(), "seconds": round(time.monotonic() - started, 3)}
        return self.score(found, told)

    def score(self, found: Figures, told: Mapping[str, Any]) -> Score:
        """Return the objectives: latency and size as fractions of the baseline's, and the quality lost.

        A variant that was not timed, because it misses the budget already, counts as fast as the baseline.
        """
        base = self.meter.baseline
        latency = 1.0
        if found.latency is not None and base.latency:
            latency = found.latency / base.latency
        axis = next((bound.axis for bound in self.budget.bounds if bound.axis in METRICS), "quality")
        loss = (base.of(axis) or 0.0) - (found.of(axis) or 0.0)
        misses = self.budget.misses(found, base)
        missed = self.budget.shortfall(found, base)
        extra = {} if missed is None else {"missed": missed}
        return Score((latency, found.size / base.size, loss), misses, {**told, **extra})

    def _measured(self, recipe: Pass, told: dict[str, Any]) -> Figures:
        try:
            made = self.maker.build(recipe)
            told["notes"] = list(made.notes)
            path = made.model.path
            assert path is not None, "a space completes its recipes so that they end in a file"
            found = self.meter.look(path)
            told["timed"] = not any(
                miss > 0 for miss in self.budget.misses(found, self.meter.baseline).values()
            )
            return self.meter.time(path, found) if told["timed"] else found
        finally:
            self.maker.tidy()
