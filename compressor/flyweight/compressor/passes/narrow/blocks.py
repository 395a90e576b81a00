"""Removal of whole residual blocks."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.narrow.shortcuts import Block, blocks_by_call, blocks_by_graph
from flyweight.compressor.passes.narrow.tracing import traced
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.training import Rows, all_answers, rows_of, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

JUDGED_ROWS: Final = 128
"""Samples on which the removal of a block is judged: its effect on the answers differs little by sample."""


@dataclass(frozen=True, slots=True)
class DropBlocks(Pass):
    """Removes the residual blocks whose removal changes the answers least; x + f(x) becomes x.

    Veit et al. 2016, "Residual networks behave like ensembles of relatively shallow networks", section 4.1:
    most blocks can go one at a time. One block after the other is chosen greedily, each given those that are
    gone, by the distance of the answers from the original's: the divergence of distillation for classes,
    squared error for values. Needs distillation afterwards. Latency falls with depth, which cutting channels
    does not achieve.

    Attributes:
        blocks: how many to remove, at most all but one of those that can be.
    """

    name: ClassVar[str] = "drop-blocks"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    blocks: int = 1

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if self.blocks < 1:
            raise RecipeError(f"The number of blocks to drop is 1 or more, and {self.blocks} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a shallower copy of the module.

        Raises:
            PassError: it has no residual block, or only one.
        """
        before = model.torch_module()
        example = [tensor_of(array) for array in model.example.values()]
        data = context.training if context.training is not None else context.calibration
        rows = rows_of(data.first(JUDGED_ROWS), tuple(model.example))
        with threads(context.threads):
            module, found = _blocks(before, example)
            if len(found) < 2:
                raise PassError(
                    f"The module has {len(found) or 'no'} residual block{'' if not found else ' only'} that "
                    "could be removed; cut channels instead."
                )
            rows = replace(rows, labels=None, teacher=all_answers(module.eval(), rows.inputs))
            dropped = _drop(module, found, min(self.blocks, len(found) - 1), rows, context)
        old, new = count_parameters(before), count_parameters(dropped.module)
        note = (
            f"Removed {len(dropped.names)} of {len(found)} residual blocks ({', '.join(dropped.names)}); "
            f"parameters {old:,} to {new:,}, {100 * new / old:.0f} %; the divergence from the original's "
            f"answers is {dropped.cost:.3g} before training."
        )
        return PassResult(replace(model, module=dropped.module), changed=True, notes=(note,))


@dataclass(frozen=True, slots=True)
class _Dropped:
    module: nn.Module
    names: list[str]
    cost: float


def _blocks(module: nn.Module, example: Sequence[Tensor]) -> tuple[nn.Module, list[Block]]:
    """Return a copy of the module, and its residual blocks: in its graph, or its parts without one."""
    try:
        graph = traced(module, example)
    except PassError:
        copied = copy.deepcopy(module).eval()
        return copied, blocks_by_call(copied, example)
    return graph, blocks_by_graph(graph)


def _drop(module: nn.Module, found: Sequence[Block], count: int, rows: Rows, context: "Context") -> _Dropped:
    """Remove the cheapest block, then the cheapest of the others, and so on."""
    left, names, cost = list(found), list[str](), 0.0
    for index in range(count):
        costs: list[tuple[float, int]] = []
        for place, block in enumerate(left):
            context.check_time()
            context.progress("removing blocks", index * len(found) + place, count * len(found))
            costs.append((_cost(block.removed_from(module), rows), place))
        cost, place = min(costs)
        chosen = left.pop(place)
        module = chosen.removed_from(module)
        names.append(chosen.name)
        # A block inside the one that went is gone with it.
        left = [block for block in left if block.is_in(module)]
        if not left:
            break
    return _Dropped(copy.deepcopy(module), names, cost)


def _cost(module: nn.Module, rows: Rows) -> float:
    with torch.no_grad():
        outputs = all_answers(module, rows.inputs)
    loss = float(TrainingLoss().of_all(outputs, rows))
    return loss if loss == loss else float("inf")  # noqa: PLR0124 - only not-a-number differs from itself
