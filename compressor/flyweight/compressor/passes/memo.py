"""Sharing of work between recipes: a pass is applied once to a model, however many recipes begin with it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flyweight.compressor.errors import CompressorError
from flyweight.compressor.passes.base import Pass, PassResult, PassSequence

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(slots=True)
class Memo:
    """Remembers what passes made of models during one run of one context; used from one thread.

    `pruned` and `pruned-int8` both begin with prune, fine-tune, export: the training is done for the first
    and remembered for the second. A pass is known by its fields (passes are frozen dataclasses), a model by
    its identity: passes never change a model in place, and the memo keeps every model it names alive.

    A pass that raised is remembered as well, and raises the same error again: it would take as long to fail.
    """

    _known: dict[tuple[Pass, int], tuple["Model", PassResult | CompressorError]] = field(default_factory=dict)

    def apply(self, recipe: Pass, model: "Model", context: "Context") -> PassResult:
        """Apply a pass or a sequence of passes, each step from memory where it was done before.

        The context must be the same in all calls, since calibration and training data are part of a result.

        Raises:
            CompressorError: what the pass raised, now or the first time.
        """
        if isinstance(recipe, PassSequence):
            return self._apply_steps(recipe, model, context)
        key = (recipe, id(model))
        if key not in self._known:
            self._known[key] = (model, self._attempt(recipe, model, context))
        outcome = self._known[key][1]
        if isinstance(outcome, CompressorError):
            raise outcome
        return outcome

    def _apply_steps(self, recipe: PassSequence, model: "Model", context: "Context") -> PassResult:
        changed, notes = False, list[str]()
        for step in recipe.passes:
            result = self.apply(step, model, context)
            model, changed = result.model, changed or result.changed
            notes.extend(result.notes)
        return PassResult(model, changed, tuple(notes))

    @staticmethod
    def _attempt(recipe: Pass, model: "Model", context: "Context") -> PassResult | CompressorError:
        try:
            return recipe(model, context)
        except CompressorError as error:
            return error
