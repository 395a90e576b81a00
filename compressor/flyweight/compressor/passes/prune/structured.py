"""Structured pruning: the least important channels are removed, and the layers are really smaller."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from torch import nn

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.prune.channels import (
    CutModule,
    CutSettings,
    apply_plan,
    by_gradient,
    by_magnitude,
    prepare,
    uniform_plan,
)
from flyweight.compressor.passes.prune.costs import Costs
from flyweight.compressor.passes.prune.coupling import LAYERS, width_of
from flyweight.compressor.passes.prune.plans import ranked_plan, sensitive_plan
from flyweight.compressor.passes.prune.retraining import Harm, Retraining
from flyweight.compressor.passes.prune.saliency import accumulate_gradients
from flyweight.compressor.passes.prune.schedule import cubic_schedule, require_ratio, require_rounds
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.processor import this_processor
from flyweight.compressor.training import TrainingSettings, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()


class ChannelImportance(Enum):
    """What makes a channel worth keeping."""

    MAGNITUDE = "magnitude"
    """Large weights, in all coupled layers together."""

    TAYLOR = "taylor"
    """A large effect on the loss, to first order; without labels, on the original's answers."""


@dataclass(frozen=True, slots=True)
class StructuredPrune(Pass):
    """Removes channels and neurons of every layer but the output's; the weights that stay are kept.

    Layers tied together by residual sums, concatenations, depthwise filters and normalisation lose the same
    channels. Layers whose cut would change what the others mean are left whole and named in the notes.

    Attributes:
        ratio: fraction of channels to remove, at least 0, below 1. Multiply-adds fall with its square.
        importance: which channels go.
        round_to: widths stay multiples of this, see CutSettings; None takes what the processor's registers
            hold, 16 with AVX-512 and 8 elsewhere.
        scope: among whom the least important are chosen. With `global` and `sensitivity` the layers lose
            different fractions, and the module keeps the multiply-adds that losing `ratio` everywhere would
            leave it; `sensitivity` measures each layer alone, by the harm to the original's answers.
        rounds: in how many steps, by `cubic_schedule`; more than one needs `training`.
        training: after each round; None leaves recovery to a later pass.
        distillation: how much that listens to the original.
    """

    name: ClassVar[str] = "prune"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    ratio: float = 0.5
    importance: ChannelImportance = ChannelImportance.MAGNITUDE
    round_to: int | None = None
    scope: Scope = Scope.LAYER
    rounds: int = 1
    training: TrainingSettings | None = None
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: one is out of its range, or rounds are asked for without training between them.
        """
        require_ratio(self.ratio)
        require_rounds(self.rounds)
        if self.scope is Scope.LAMP:
            raise RecipeError(
                "Scope lamp ranks single weights; prune channels by layer, global or sensitivity."
            )
        if self.round_to is not None and self.round_to < 1:
            raise RecipeError(f"Widths are rounded to a multiple of at least 1, not {self.round_to}.")
        if self.rounds > 1 and self.training is None:
            raise RecipeError("Pruning in rounds needs training between them; give `training`, or one round.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a narrower copy of the module.

        Raises:
            PassError: the module cannot be cut, or retraining has nothing to learn from.
        """
        if self.ratio == 0.0:
            return PassResult(model, changed=False, notes=("Asked to prune nothing.",))
        original = model.torch_module()
        steps = [1.0 - gone for gone in cubic_schedule(self.ratio, self.rounds)]
        retrain = self.training and Retraining(model, context, self.training, self.distillation)
        module, before, training_notes = original, 1.0, tuple[str, ...]()
        refused: dict[str, str] = {}
        with threads(context.threads):
            harm = Harm(model, context) if self.scope is Scope.SENSITIVITY else None
            for step in steps:
                context.check_time()
                cut = self._cut(replace(model, module=module), context, step / before, harm)
                refused.update(cut.refused)
                if cut.channels or module is original:
                    module = cut.module
                if cut.channels:
                    before = step
                    training_notes = retrain(module) if retrain else ()
        if not _widths_changed(original, module):
            return PassResult(model, changed=False, notes=("No layer is wide enough to lose channels.",))
        notes = (self._describe(original, module), *_describe_refused(refused), *training_notes)
        return PassResult(replace(model, module=module), changed=True, notes=notes)

    def _cut(self, model: "Model", context: "Context", keep: float, harm: Harm | None) -> CutModule:
        """Return a copy that keeps a fraction of the channels the model has."""
        module = model.torch_module()
        taylor = self.importance is ChannelImportance.TAYLOR
        if taylor:
            accumulate_gradients(module, model, context)
        try:
            prepared = prepare(module, [tensor_of(array) for array in model.example.values()])
        finally:
            module.zero_grad(set_to_none=True)
        importance = by_gradient(comparable=self.scope is Scope.GLOBAL) if taylor else by_magnitude()
        settings = CutSettings(keep, self.round_to or this_width())
        if self.scope is Scope.LAYER or not prepared.groups:
            plan = uniform_plan(prepared.groups, settings)
        elif self.scope is Scope.GLOBAL:
            plan = ranked_plan(prepared, settings, importance, Costs(prepared.couplings))
        else:
            assert harm is not None, "made where the scope is sensitivity"
            plan = sensitive_plan(prepared, settings, importance, harm, context)
        return apply_plan(prepared, plan, importance)

    def _describe(self, before: nn.Module, after: nn.Module) -> str:
        how = {
            Scope.GLOBAL: ", ranked across all layers",
            Scope.SENSITIVITY: ", by the harm measured for each layer",
        }.get(self.scope, "")
        rounds = f" in {self.rounds} rounds" if self.rounds > 1 else ""
        sentence = describe_cut(before, CutModule(after, _widths_changed(before, after)))
        return f"{sentence[:-1]}{how}{rounds}."


def this_width() -> int:
    """Return the float32 channels that the processor's kernels work on at once: 16 with AVX-512, else 8."""
    return this_processor().preferred_multiple


def describe_cut(before: nn.Module, cut: CutModule) -> str:
    """Return a sentence for the report."""
    old, new = count_parameters(before), count_parameters(cut.module)
    widest, (had, has) = max(cut.channels.items(), key=lambda item: item[1][0])
    return (
        f"{len(cut.channels)} layers lost channels (the widest, {widest}: {had} to {has}); "
        f"parameters {old:,} to {new:,}, {100 * new / old:.0f} %."
    )


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights, buffers of normalisation not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def _describe_refused(refused: dict[str, str]) -> tuple[str, ...]:
    if not refused:
        return ()
    name, reason = next(iter(refused.items()))
    return (f"{len(refused)} layers were left whole; {name}, for example: {reason}",)


def _widths_changed(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    old = {name: width_of(layer) for name, layer in before.named_modules() if isinstance(layer, LAYERS)}
    new = {name: width_of(layer) for name, layer in after.named_modules() if isinstance(layer, LAYERS)}
    return {name: (old[name], width) for name, width in new.items() if old.get(name, width) != width}
