"""Building a narrower student of the same architecture as any torch module."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.prune.channels import CutSettings, by_magnitude, cut_channels
from flyweight.compressor.passes.prune.structured import describe_cut
from flyweight.compressor.training import seeded, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class NarrowWidth(Pass):
    """Makes every layer but the output's narrower by one factor, as a student for distillation.

    Attributes:
        width: fraction of the channels the student has, above 0, at most 1.
        warm_start: start from the strongest channels of the original instead of from fresh random weights. It
            made better students everywhere it was measured: one point on Fashion-MNIST after five epochs.
        round_to: widths are multiples of this; see CutSettings.
    """

    name: ClassVar[str] = "narrow"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    width: float = 0.5
    warm_start: bool = True
    round_to: int = 16

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if not 0.0 < self.width <= 1.0:
            raise RecipeError(f"A student's width is above 0 and at most 1, and {self.width} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a narrow module; it answers nothing useful before it is trained.

        Raises:
            PassError: the module's channels cannot be cut.
        """
        example = [tensor_of(array) for array in model.example.values()]
        with threads(context.threads):
            cut = cut_channels(
                model.torch_module(), example, CutSettings(self.width, self.round_to), by_magnitude()
            )
        notes = [describe_cut(model.torch_module(), cut)] if cut.channels else ["No layer could be narrower."]
        if not self.warm_start:
            with seeded(context.seed):
                kept = initialise(cut.module)
            notes.append("The student starts from fresh weights." if not kept else _kept(kept))
        return PassResult(replace(model, module=cut.module), changed=True, notes=tuple(notes))


def initialise(module: nn.Module) -> list[str]:
    """Give every layer fresh weights, in place; return the names of parameters that have no initialiser."""
    kept = []
    for name, layer in module.named_modules():
        own = [f"{name}.{parameter}".lstrip(".") for parameter, _ in layer.named_parameters(recurse=False)]
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
        else:
            kept.extend(own)
    return kept


def _kept(names: list[str]) -> str:
    return (
        f"The student starts from fresh weights, except for {len(names)} parameters "
        f"that keep the original's ({names[0]}...)."
    )
