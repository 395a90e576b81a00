"""Removal of whole residual blocks."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final

from torch import Tensor, nn

from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.narrow.shortcuts import Block, blocks_by_call, blocks_by_graph
from flyweight.compressor.passes.narrow.tracing import traced
from flyweight.compressor.passes.prune.retraining import Harm, Retraining
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.training import TrainingSettings, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()


@dataclass(frozen=True, slots=True)
class DropBlocks(Pass):
    """Removes the residual blocks whose removal changes the answers least; x + f(x) becomes x.

    A residual network is an ensemble of paths that hardly depend on one another (Veit et al. 2016, "Residual
    Networks Behave Like Ensembles of Relatively Shallow Networks", section 4.1), so that most blocks can go
    one at a time. One after the other is chosen greedily, each given those that are gone, by measurement on
    calibration samples: `divergence` of the answers from the original's. Latency falls with depth, which
    cutting channels does not achieve.

    Attributes:
        blocks: how many to remove, at most all but one of those that can be.
        max_harm: none goes after which the answers would have moved by more than this from the original's, in
            nats of KL divergence for scores of classes (see `divergence`); None, the default, sets no limit,
            for recipes that train afterwards.
        training: after each block; None leaves recovery to a later pass.
        distillation: how much that listens to the original.
    """

    name: ClassVar[str] = "drop-blocks"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    blocks: int = 1
    max_harm: float | None = None
    training: TrainingSettings | None = None
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: one is out of its range.
        """
        if self.blocks < 1:
            raise RecipeError(f"The number of blocks to drop is 1 or more, and {self.blocks} is not.")
        if self.max_harm is not None and not self.max_harm > 0:
            raise RecipeError(f"The largest harm of dropping a block is above 0, and {self.max_harm} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a shallower copy of the module.

        Raises:
            PassError: it has no residual block, or only one, or retraining has nothing to learn from.
        """
        before = model.torch_module()
        example = [tensor_of(array) for array in model.example.values()]
        with threads(context.threads):
            module, found = _blocks(before, example)
            if len(found) < 2:
                raise PassError(
                    f"The module has {len(found) or 'no'} residual block{'' if not found else ' only'} that "
                    "could be removed; cut channels instead."
                )
            removal = _Removal(module, found, Harm(model, context), context)
            retrain = self.training and Retraining(model, context, self.training, self.distillation)
            notes = tuple[str, ...]()
            for _ in range(min(self.blocks, len(found) - 1)):
                if not removal.remove_least_harmful(float("inf") if self.max_harm is None else self.max_harm):
                    break
                if retrain:
                    notes = retrain(removal.module)
        if not removal.removed:
            return PassResult(model, changed=False, notes=(removal.refusal(),))
        shorter = copy.deepcopy(removal.module)
        old, new = count_parameters(before), count_parameters(shorter)
        note = (
            f"Removed {len(removal.removed)} of {len(found)} residual blocks, after each how far the answers "
            f"were from the original's: {', '.join(removal.removed)}; parameters {old:,} to {new:,}, "
            f"{100 * new / old:.0f} %."
        )
        return PassResult(replace(model, module=shorter), changed=True, notes=(note, *notes))


@dataclass(slots=True)
class _Removal:
    """A module that loses one block after the other.

    Attributes:
        module: as it is now; layers are shared with what it was before.
        left: blocks that it still has.
        removed: name and harm of those that are gone.
    """

    module: nn.Module
    left: Sequence[Block]
    harm: Harm
    context: "Context"
    removed: list[str] = field(default_factory=list)
    _least: str = ""

    def remove_least_harmful(self, limit: float) -> bool:
        """Remove the block whose absence does least harm; return False if that is none, or above `limit`."""
        harms = list[float]()
        for place, block in enumerate(self.left):
            self.context.check_time()
            self.context.progress("measuring blocks", place, len(self.left))
            harms.append(self._harm_without(block))
        self.context.progress("measuring blocks", len(self.left), len(self.left))
        lost = min(harms, default=float("inf"))
        if lost == float("inf") or lost > limit:
            self._least = f" without {self.left[harms.index(lost)].name}, the least harmful," if harms else ""
            self._least += f" the answers would move by {lost:.2g}"
            return False
        chosen = self.left[harms.index(lost)]
        self.module = chosen.removed_from(self.module)
        self.removed.append(f"{chosen.name} ({lost:.2g})")
        # A block inside the one that went is gone with it.
        self.left = [block for block in self.left if block is not chosen and block.is_in(self.module)]
        return True

    def refusal(self) -> str:
        """Return the sentence that says why nothing was removed."""
        return f"No block could be removed:{self._least}."

    def _harm_without(self, block: Block) -> float:
        try:
            with quiet():
                return run_foreign(lambda: self.harm(block.removed_from(self.module)), PassError)
        except OutOfTimeError:
            raise
        except PassError:
            # Who relies on a block being there cannot do without it.
            return float("inf")


def _blocks(module: nn.Module, example: Sequence[Tensor]) -> tuple[nn.Module, list[Block]]:
    """Return a copy of the module, and its residual blocks: in its graph, or its parts without one.

    Raises:
        PassError: the module cannot run on its example.
    """
    try:
        graph = traced(module, example)
    except PassError:
        copied = copy.deepcopy(module).eval()
        with quiet():
            return copied, run_foreign(
                lambda: blocks_by_call(copied, example),
                lambda reason: PassError(f"The module's blocks could not be found ({reason})."),
            )
    return graph, blocks_by_graph(graph)
