"""Pruning of whole blocks: those that the answers change least without are left out."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from torch import nn

from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.prune.retraining import Harm, Retraining
from flyweight.compressor.passes.prune.skips import Skip, find_skips
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.training import TrainingSettings, rows_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()


@dataclass(frozen=True, slots=True)
class PruneBlocks(Pass):
    """Leaves out whole blocks whose output has the shape of their input, one after the other.

    A residual network is an ensemble of paths that hardly depend on one another (Veit et al. 2016, "Residual
    Networks Behave Like Ensembles of Relatively Shallow Networks", section 4.1), so single blocks can go.
    In each round every block that is left is tried, and the one goes whose absence changes the answers least
    for the parameters it saves: greedy, by measurement on calibration samples. In modules that are graphs the
    blocks are the branches of residual sums, elsewhere submodules.

    Attributes:
        count: how many blocks go, at least 1.
        max_harm: none goes whose absence would move the answers by more than this from the original's, in
            nats of KL divergence for scores of classes (see `divergence`); infinite without training would
            ruin most networks, so the default stops where a few percent of the answers change.
        training: after each block; None leaves recovery to a later pass.
        distillation: how much that listens to the original.
    """

    name: ClassVar[str] = "prune-blocks"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    count: int = 1
    max_harm: float = 1.0
    training: TrainingSettings | None = None
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one is out of its range.
        """
        if self.count < 1:
            raise RecipeError(f"The number of blocks to leave out is at least 1, not {self.count}.")
        if not self.max_harm > 0:
            raise RecipeError(f"The largest harm of leaving a block out is above 0, not {self.max_harm}.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module without some of its blocks.

        Raises:
            PassError: the module has no block that could go, or retraining has nothing to learn from.
        """
        retrain = self.training and Retraining(model, context, self.training, self.distillation)
        module, gone, notes = model.torch_module(), list[str](), tuple[str, ...]()
        found: tuple[Skip, float] | None = None
        with threads(context.threads):
            harm = Harm(model, context)
            for _ in range(self.count):
                found = _least_harmful(module, model, context, harm, self.max_harm)
                if found is None or not found[1] <= self.max_harm:
                    break
                module = without(module, found[0])
                gone.append(f"{found[0].name} ({found[1]:.2g})")
                if retrain:
                    notes = retrain(module)
        if not gone:
            least = "" if found is None else f" the least harmful, {found[0].name}, would cost {found[1]:.2g}"
            return PassResult(model, changed=False, notes=(f"No block could be left out:{least}.",))
        old, new = count_parameters(model.torch_module()), count_parameters(module)
        note = (
            f"{len(gone)} blocks were left out, each with the harm it did: {', '.join(gone)}; "
            f"parameters {old:,} to {new:,}, {100 * new / old:.0f} %."
        )
        return PassResult(replace(model, module=module), changed=True, notes=(note, *notes))


def without(module: nn.Module, skip: Skip) -> nn.Module:
    """Return a copy of a module without one of its blocks."""
    copied = copy.deepcopy(module)
    skip.drop(copied)
    return copied.eval()


def _least_harmful(
    module: nn.Module, model: "Model", context: "Context", harm: Harm, limit: float
) -> tuple[Skip, float] | None:
    """Return the block whose absence does least harm, and how much; None if none can be left out.

    Raises:
        PassError: the module has no block that could be tried.
    """
    inputs = rows_of(context.calibration.first(1), tuple(model.example)).inputs
    with quiet():
        skips = run_foreign(
            lambda: find_skips(module, inputs),
            lambda reason: PassError(f"The module's blocks could not be found ({reason})."),
        )
    if not skips and module is model.torch_module():
        raise PassError("The module has no block whose output has the shape of its input.")
    best: tuple[float, Skip, float] | None = None
    for done, skip in enumerate(skips):
        context.check_time()
        context.progress("measuring blocks", done, len(skips))
        lost, saved = _trial(module, skip, harm)
        price = lost / saved if saved else float("inf")
        # Too harmful a block goes only into the report, when no other can go.
        if best is None or (best[2] > limit, best[0]) > (lost > limit, price):
            best = (price, skip, lost)
    context.progress("measuring blocks", len(skips), len(skips))
    return None if best is None else best[1:]


def _trial(module: nn.Module, skip: Skip, harm: Harm) -> tuple[float, int]:
    """Return the harm of leaving a block out, and the parameters that saves."""
    less = without(module, skip)
    saved = count_parameters(module) - count_parameters(less)
    try:
        with quiet():
            return run_foreign(lambda: harm(less), PassError), saved
    except OutOfTimeError:
        raise
    except PassError:
        # Who relies on a block being there cannot do without it.
        return float("inf"), saved
