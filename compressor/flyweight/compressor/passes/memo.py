"""Sharing of work between recipes: a pass is applied once to a model, however many recipes begin with it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flyweight.compressor.errors import CompressorError, OutOfTimeError
from flyweight.compressor.passes.base import Pass, PassResult, PassSequence

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


class Store(Protocol):
    """Someone who remembers the outcome of the first steps of a recipe for longer than one run."""

    def find(self, model: "Model", steps: Sequence[Pass]) -> PassResult | None:
        """Return what `steps` made of `model`, or None."""

    def keep(self, model: "Model", steps: Sequence[Pass], result: PassResult) -> None:
        """Remember it, if it can be."""


@dataclass(slots=True)
class Memo:
    """Remembers what passes made of models during one run of one context; used from one thread.

    `pruned` and `pruned-int8` both begin with prune, fine-tune, export: the training is done for the first
    and remembered for the second. A pass is known by its fields (passes are frozen dataclasses), a model by
    its identity: passes never change a model in place, and the memo keeps every model it names alive.

    A pass that raised is remembered as well, and raises the same error again: it would take as long to fail.
    Not so where time was up, which says nothing of the next run.

    Attributes:
        store: remembers between runs; asked first for the longest beginning of a recipe.
        limit: results to remember at most, the longest unused forgotten first; None remembers all.
    """

    store: Store | None = None
    limit: int | None = None
    _known: OrderedDict[tuple[Pass, int], tuple["Model", PassResult | CompressorError]] = field(
        default_factory=OrderedDict
    )

    def apply(self, recipe: Pass, model: "Model", context: "Context") -> PassResult:
        """Apply a pass or a sequence of passes, each step from memory where it was done before.

        The context must be the same in all calls, since calibration and training data are part of a result.

        Raises:
            CompressorError: what the pass raised, now or the first time.
        """
        return self._apply_steps(_steps(recipe), model, context)

    def paths(self) -> set[Path]:
        """Return the files of all models that are remembered."""
        models = [model for model, _ in self._known.values()]
        models += [made.model for _, made in self._known.values() if isinstance(made, PassResult)]
        return {model.path for model in models if model.path is not None}

    def _apply_steps(self, steps: Sequence[Pass], source: "Model", context: "Context") -> PassResult:
        done, found = self._longest(steps, source)
        model, changed, notes = source, False, list[str]()
        if found is not None:
            model, changed, notes = found.model, found.changed, list(found.notes)
        for place, step in enumerate(steps[done:], start=done + 1):
            result = self._apply_step(step, model, context)
            model, changed = result.model, changed or result.changed
            notes.extend(result.notes)
            if self.store is not None:
                self.store.keep(source, steps[:place], PassResult(model, changed, tuple(notes)))
        return PassResult(model, changed, tuple(notes))

    def _longest(self, steps: Sequence[Pass], source: "Model") -> tuple[int, PassResult | None]:
        """Return how many of the steps need not be done again, and what they gave."""
        if self.store is not None and not self._remembers(steps, source):
            for length in range(len(steps), 0, -1):
                found = self.store.find(source, steps[:length])
                if found is not None:
                    return length, found
        return 0, None

    def _remembers(self, steps: Sequence[Pass], model: "Model") -> bool:
        """Return whether every step is remembered in this run, so that the store need not be asked."""
        for step in steps:
            known = self._known.get((step, id(model)))
            if known is None or isinstance(known[1], CompressorError):
                return known is not None
            model = known[1].model
        return True

    def _apply_step(self, step: Pass, model: "Model", context: "Context") -> PassResult:
        key = (step, id(model))
        if key not in self._known:
            self._known[key] = (model, self._attempt(step, model, context))
            while self.limit is not None and len(self._known) > self.limit:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        outcome = self._known[key][1]
        if isinstance(outcome, CompressorError):
            raise outcome
        return outcome

    @staticmethod
    def _attempt(recipe: Pass, model: "Model", context: "Context") -> PassResult | CompressorError:
        try:
            return recipe(model, context)
        except OutOfTimeError:
            raise
        except CompressorError as error:
            return error


def _steps(recipe: Pass) -> tuple[Pass, ...]:
    if isinstance(recipe, PassSequence):
        return tuple(step for part in recipe.passes for step in _steps(part))
    return (recipe,)
