"""The pass of an architecture search within the module that the user gave."""

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import nn

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.lesson import lesson_for
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.search.architecture import Found, choose, search_subnetworks, train_supernet
from flyweight.compressor.search.supernet import Supernet
from flyweight.compressor.training import Rows, TrainingSettings, restore_statistics, tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()
SUPERNET: Final = TrainingSettings(epochs=12, learning_rate=1e-3)
# Shared weights rank sub-networks; a fifth of the rows suffices for that.
_JUDGING_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class ArchitectureSearch(Pass):
    """Finds a narrower, shallower network with smaller kernels inside the module (Cai et al. 2020).

    A supernet of all sub-networks is trained once; NSGA-II looks for those with the fewest multiply-adds and
    the least loss; the best within `macs` is cut out. Fine-tune it after that.

    Attributes:
        macs: fraction of the multiply-adds that the chosen sub-network has at most.
        training: of the supernet; every step costs four of the module's.
        trials: sub-networks that are judged, without training; a few hundred runs of the judging rows.
        round_to: widths are multiples of this; see CutSettings.
        distillation: how the whole network listens to the original, and the sub-networks to it.
    """

    name: ClassVar[str] = "architecture"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    macs: float = 0.5
    training: TrainingSettings = SUPERNET
    trials: int = 96
    round_to: int = 8
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: one is out of it.
        """
        if not 0.0 < self.macs <= 1.0:
            raise RecipeError(f"The share of multiply-adds is above 0 and at most 1, and {self.macs} is not.")
        if self.trials < 2:
            raise RecipeError(f"An architecture search needs at least 2 trials, and {self.trials} is fewer.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return the chosen sub-network.

        Raises:
            PassError: nothing in the module may vary, or there is nothing to learn from.
            OutOfTimeError: the deadline came.
            SearchError: Optuna is not installed, or no sub-network is small enough.
        """
        net, front, training = self._front(model, context)
        found = choose(front, self.macs)
        with threads(context.threads):
            module = net.extract(found.sub)
            restore_statistics(module, training, torch.device("cpu"))
        values = [(d.kind, d.values[0], found.sub.value(d)) for d in net.dimensions]
        changed = {
            kind: sum(now < was for what, was, now in values if what == kind)
            for kind in ("width", "kernel", "depth")
        }
        note = (
            f"Of {self.trials} sub-networks of a supernet, one with {found.macs:.0%} of the multiply-adds "
            f"and {found.parameters:.0%} of the parameters was chosen: {changed['width']} narrower groups of "
            f"layers, {changed['kernel']} smaller kernels, {changed['depth']} skipped blocks."
        )
        return PassResult(replace(model, module=module), changed=found.macs < 1, notes=(note,))

    def _front(self, model: "Model", context: "Context") -> tuple[Supernet, tuple[Found, ...], Rows]:
        """Train the supernet and search it; recipes that differ in `macs` alone share both."""
        rows = lesson_for(model, context).rows
        count = max(1, round(len(rows) * _JUDGING_SHARE))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(context.seed))
        judging, training = rows.take(order[:count].sort().values), rows.take(order[count:].sort().values)
        data = context.training if context.training is not None else context.calibration
        key = (replace(self, macs=1.0), data.digest, context.seed)
        module = model.torch_module()
        known = _TRAINED.setdefault(module, {})
        if key not in known:
            net = Supernet(module, [tensor_of(array) for array in model.example.values()], self.round_to)
            train_supernet(net, training, self.training, self.distillation, context)
            known[key] = net, search_subnetworks(net, training, judging, self.trials, context)
        return *known[key], training


_TRAINED: "weakref.WeakKeyDictionary[nn.Module, dict[object, tuple[Supernet, tuple[Found, ...]]]]" = (
    weakref.WeakKeyDictionary()
)
