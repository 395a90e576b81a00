"""Pruning of attention heads: the projections of queries, keys, values and outputs really become smaller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from torch import nn

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.prune.attentions import Attention, find_attentions, slimmed
from flyweight.compressor.passes.prune.head_scores import HeadImportance, heads_to_keep, score_heads
from flyweight.compressor.passes.prune.retraining import Retraining
from flyweight.compressor.passes.prune.schedule import require_ratio
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.training import TrainingSettings, rows_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()


@dataclass(frozen=True, slots=True)
class PruneHeads(Pass):
    """Removes the least important attention heads; every attention keeps at least one.

    Works on nn.MultiheadAttention and, in modules that are graphs or can be traced, on attention made of
    linear layers, whose reshapes are rewritten. Each cut is compared with the module whose heads are not
    listened to, and left out where it answers otherwise.

    Attributes:
        ratio: fraction of heads to remove, at least 0, below 1.
        importance: which heads go.
        scope: whether every attention loses `ratio` of its heads, or all heads are ranked together. Heads
            differ by layer more than within one (Michel et al. 2019, figure 3), so ranking together is the
            default.
        training: afterwards; None leaves recovery to a later pass.
        distillation: how much that listens to the original.
    """

    name: ClassVar[str] = "prune-heads"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    ratio: float = 0.25
    importance: HeadImportance = HeadImportance.MEASURED
    scope: Scope = Scope.GLOBAL
    training: TrainingSettings | None = None
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: the ratio is out of its range, or the scope has no meaning for heads.
        """
        require_ratio(self.ratio)
        if self.scope in {Scope.SENSITIVITY, Scope.LAMP}:
            raise RecipeError(
                "Heads are chosen with scope layer or global; measure them with importance measured."
            )

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module with fewer heads.

        Raises:
            PassError: no attention is found, none can lose heads, or retraining has nothing to learn from.
        """
        if self.ratio == 0.0:
            return PassResult(model, changed=False, notes=("Asked to prune nothing.",))
        inputs = rows_of(context.calibration.first(2), tuple(model.example)).inputs
        with threads(context.threads):
            module, attentions = find_attentions(model.torch_module(), inputs)
            scores = score_heads(self.importance, replace(model, module=module), attentions, context)
            kept = heads_to_keep(scores, self.ratio, self.scope)
            slim, done = slimmed(module, attentions, kept, inputs, context)
            if not done:
                return PassResult(model, changed=False, notes=("No attention has a head to spare.",))
            notes = [_describe(attentions, done, kept, (model.torch_module(), slim))]
            if self.training is not None:
                notes += Retraining(model, context, self.training, self.distillation)(slim)
        return PassResult(replace(model, module=slim), changed=True, notes=tuple(notes))


def _describe(
    attentions: Sequence[Attention],
    done: Sequence[Attention],
    kept: Mapping[str, list[int]],
    modules: tuple[nn.Module, nn.Module],
) -> str:
    heads = sum(attention.heads for attention in attentions)
    gone = sum(attention.heads - len(kept[attention.name]) for attention in done)
    old, new = (count_parameters(module) for module in modules)
    return (
        f"{gone} of {heads} heads were removed, in {len(done)} of {len(attentions)} attentions; "
        f"parameters {old:,} to {new:,}, {100 * new / old:.0f} %."
    )
