"""Freezing of layers: training passes after it leave them as they are."""

import copy
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.transfer.heads import find_head
from flyweight.compressor.training import tensor_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class Freeze(Pass):
    """Freezes the layers that are named and thaws all others; normalisation keeps its statistics as well.

    Yosinski et al. 2014, "How transferable are features in deep neural networks?": the layers near the input
    fit other tasks as they are, and with few samples training them does harm. `freeze: {layers: []}` thaws
    everything. Cutting channels or layers thaws too.

    Attributes:
        layers: globs over the names of layers and of parameters; a layer's parameters are frozen with it.
        head: whether the head, the last linear layer or 1x1 convolution, may be frozen by them.
    """

    name: ClassVar[str] = "freeze"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    layers: tuple[str, ...] = ("*",)
    head: bool = False

    def apply(self, model: "Model", context: "Context") -> PassResult:  # noqa: ARG002 - the same for all passes
        """Return a copy of the module with the named layers frozen.

        Raises:
            PassError: a glob fits no name, or nothing is left to train.
        """
        module = copy.deepcopy(model.torch_module())
        kept = set[str]()
        if not self.head and self.layers:
            head = find_head(module, [tensor_of(array) for array in model.example.values()])
            kept = {name for name in _names(module) if name == head or name.startswith(f"{head}.")}
        frozen = frozen_parameters(module, self.layers) - kept
        total = 0
        for name, parameter in module.named_parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(name not in frozen)
                total += 1
        if len(frozen) == total:
            raise PassError(f"Freezing {', '.join(self.layers)} leaves nothing to train; name fewer layers.")
        note = (
            f"Froze {len(frozen)} of {total} weights and biases; training leaves them as they are."
            if frozen
            else "Thawed every layer."
        )
        return PassResult(replace(model, module=module), changed=True, notes=(note,))


def frozen_parameters(module: nn.Module, globs: Sequence[str]) -> set[str]:
    """Return the names of the parameters that the globs name, or that lie in a layer they name.

    Raises:
        PassError: a glob fits no name.
    """
    names = _names(module)
    for glob in globs:
        if not fnmatch.filter(names, glob):
            raise PassError(
                f"No layer of the model is called like {glob!r}; its layers are {_listed(module)}."
            )
    found = set[str]()
    for name, parameter in module.named_parameters():
        parts = name.split(".")
        owners = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        fits = any(fnmatch.fnmatch(owner, glob) for owner in owners for glob in globs)
        if parameter.is_floating_point() and fits:
            found.add(name)
    return found


def _names(module: nn.Module) -> list[str]:
    layers = [name for name, _ in module.named_modules() if name]
    return layers + [name for name, _ in module.named_parameters()]


def _listed(module: nn.Module) -> str:
    names = [name for name, _ in module.named_children()]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
