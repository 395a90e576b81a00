"""The weights of a torch module that can become zeros, and how they are kept at zero while it trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.passes.prune.masks import Mask
from flyweight.compressor.training import TrainingHooks

_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix or a bank of filters.

    Attributes:
        name: of the parameter in the module.
        input_axis: the axis along which products add up, which N:M patterns run along.
    """

    name: str
    input_axis: int


def prunable(module: nn.Module) -> tuple[Weight, ...]:
    """Return the weights of convolutions, linear and recurrent layers and attention, each once.

    Embeddings are left alone: their rows are words, and rare ones would lose theirs. So are biases and
    normalisation, which are few and dear.
    """
    found: dict[int, Weight] = {}
    for path, layer in module.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            axis = _input_axis(layer, name)
            if axis is not None and parameter.ndim >= 2 and parameter.is_floating_point():
                found.setdefault(id(parameter), Weight(f"{path}.{name}".lstrip("."), axis))
    return tuple(found.values())


def _input_axis(layer: nn.Module, name: str) -> int | None:
    if name == "weight" and isinstance(layer, (*_CONVOLUTIONS, nn.Linear)):
        return 1
    if name == "weight" and isinstance(layer, _TRANSPOSED):
        return 0
    recurrent = isinstance(layer, nn.RNNBase | nn.RNNCellBase) and name.startswith("weight_")
    attention = isinstance(layer, nn.MultiheadAttention) and name.endswith("_proj_weight")
    return 1 if recurrent or attention else None


def values_of(module: nn.Module, weight: Weight) -> Tensor:
    """Return a weight's values, detached; changing them changes the module."""
    return module.get_parameter(weight.name).detach()


@torch.no_grad()
def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to zero, in place, what the masks do not keep; a mask is true where the weight stays.

    They become +0.0 whatever their sign was, so that stored zeros are all the same bytes.
    """
    for name, mask in masks.items():
        module.get_parameter(name).masked_fill_(~mask.to(module.get_parameter(name).device), 0.0)


def holding(masks: Mapping[str, Tensor]) -> TrainingHooks:
    """Return hooks that put the zeros back after every optimiser step."""
    return TrainingHooks(after_step=lambda module: apply_masks(module, masks))


def as_tensors(masks: Mapping[str, Mask]) -> dict[str, Tensor]:
    """Return masks as tensors of truth values."""
    return {name: torch.from_numpy(np.ascontiguousarray(mask)) for name, mask in masks.items()}


def sparsity(module: nn.Module, weights: tuple[Weight, ...]) -> float:
    """Return the fraction of these weights that is zero."""
    tensors = [values_of(module, weight) for weight in weights]
    total = sum(tensor.numel() for tensor in tensors)
    return sum(int((tensor == 0).sum()) for tensor in tensors) / total if total else 0.0
