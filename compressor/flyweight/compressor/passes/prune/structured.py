"""Structured pruning: the least important channels of every layer are removed."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.prune.channels import (
    CutModule,
    CutSettings,
    by_gradient,
    by_magnitude,
    cut_channels,
)
from flyweight.compressor.training import output_of, rows_of, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

TAYLOR_ROWS = 256
"""Samples whose gradients are summed; the ranking of channels hardly moves with more."""


class ChannelImportance(Enum):
    """What makes a channel worth keeping."""

    MAGNITUDE = "magnitude"
    """Large weights, in all coupled layers together."""

    TAYLOR = "taylor"
    """A large effect on the loss, to first order; needs labelled training data."""


@dataclass(frozen=True, slots=True)
class StructuredPrune(Pass):
    """Removes a fraction of the channels of every layer but the output's; the weights that stay are kept.

    Attributes:
        ratio: fraction of channels to remove, at least 0, below 1. Multiply-adds fall with its square.
        importance: which channels go.
        round_to: widths stay multiples of this; see CutSettings.
    """

    name: ClassVar[str] = "prune"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    ratio: float = 0.5
    importance: ChannelImportance = ChannelImportance.MAGNITUDE
    round_to: int = 16

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if not 0.0 <= self.ratio < 1.0:
            raise RecipeError(f"A pruning ratio is at least 0 and below 1, and {self.ratio} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a narrower copy of the module.

        Raises:
            PassError: the module cannot be cut, or importance needs labelled data and there are none.
        """
        if self.ratio == 0.0:
            return PassResult(model, changed=False, notes=("Asked to prune nothing.",))
        settings = CutSettings(1.0 - self.ratio, self.round_to)
        example = [tensor_of(array) for array in model.example.values()]
        module = model.torch_module()
        with threads(context.threads):
            if self.importance is ChannelImportance.TAYLOR:
                _accumulate_gradients(module, model, context)
            scorer = by_gradient if self.importance is ChannelImportance.TAYLOR else by_magnitude
            try:
                cut = cut_channels(module, example, settings, scorer())
            finally:
                module.zero_grad(set_to_none=True)
        if not cut.channels:
            return PassResult(model, changed=False, notes=("No layer is wide enough to lose channels.",))
        note = describe_cut(module, cut)
        return PassResult(replace(model, module=cut.module), changed=True, notes=(note,))


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


def _accumulate_gradients(module: nn.Module, model: "Model", context: "Context") -> None:
    data = context.training
    if data is None or data.labels is None:
        raise PassError(
            "Taylor importance needs labelled training data, and there are none; "
            "give labels, or use importance 'magnitude'."
        )
    rows = rows_of(data.first(TAYLOR_ROWS), tuple(model.example))
    module.zero_grad(set_to_none=True)
    TrainingLoss()(output_of(module(*rows.inputs)), rows).backward()  # type: ignore[no-untyped-call]  # torch annotates it incompletely
