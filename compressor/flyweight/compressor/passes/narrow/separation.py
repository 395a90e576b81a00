"""Depthwise-separable replacement of convolutions."""

import copy
import fnmatch
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.training import threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class Separate(Pass):
    """Replaces dense k x k convolutions by a filter for each channel and a 1 x 1 convolution after it.

    Howard et al. 2017, "MobileNets", section 3.1: 1/out + 1/k^2 of the multiply-adds. The filters start from
    the best approximation of the kernel of that form, and need distillation afterwards.

    Attributes:
        layers: globs over names of convolutions; all that get cheaper by default.
        multiplier: filters for each channel; more are closer to the kernel, and k x k are exact.
    """

    name: ClassVar[str] = "separate"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    layers: tuple[str, ...] = ("*",)
    multiplier: int = 1

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if self.multiplier < 1:
            raise RecipeError(f"A channel needs at least one filter, and {self.multiplier} is fewer.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module with separated convolutions.

        Raises:
            PassError: no convolution is called so.
        """
        before = model.torch_module()
        module = copy.deepcopy(before).eval()
        chosen = {
            name: layer
            for name, layer in module.named_modules(remove_duplicate=False)
            if isinstance(layer, nn.Conv2d) and any(fnmatch.fnmatch(name, glob) for glob in self.layers)
        }
        if not chosen and self.layers != ("*",):
            raise PassError(f"No convolution of the model is called like {', '.join(self.layers)}.")
        made: dict[int, nn.Module] = {}
        with threads(context.threads):
            for name, layer in chosen.items():
                if self._is_cheaper(layer):
                    # A layer under two names stays one layer.
                    new = made.setdefault(id(layer), separated(layer, self.multiplier))
                    module.set_submodule(name, new)
        if not made:
            return PassResult(model, changed=False, notes=("No convolution is cheaper when separated.",))
        old, new_count = count_parameters(before), count_parameters(module)
        note = (
            f"{len(made)} convolutions were separated into depthwise and pointwise ones; parameters {old:,} "
            f"to {new_count:,}, {100 * new_count / old:.0f} %."
        )
        return PassResult(replace(model, module=module), changed=True, notes=(note,))

    def _is_cheaper(self, layer: nn.Conv2d) -> bool:
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        dense = layer.groups == 1 and layer.padding_mode == "zeros"
        return dense and self.multiplier * (kernel + layer.out_channels) < kernel * layer.out_channels


def separated(layer: nn.Conv2d, multiplier: int) -> nn.Sequential:
    """Return a depthwise and a pointwise convolution that together are nearest to `layer`."""
    filters, mixing = separable_factors(layer.weight.detach(), multiplier)
    depthwise = nn.Conv2d(
        layer.in_channels,
        layer.in_channels * multiplier,
        (layer.kernel_size[0], layer.kernel_size[1]),
        stride=_pair(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
        dilation=_pair(layer.dilation),
        groups=layer.in_channels,
        bias=False,
    )
    pointwise = nn.Conv2d(layer.in_channels * multiplier, layer.out_channels, 1, bias=layer.bias is not None)
    with torch.no_grad():
        depthwise.weight.copy_(filters)
        pointwise.weight.copy_(mixing)
        if layer.bias is not None and pointwise.bias is not None:
            pointwise.bias.copy_(layer.bias)
    return nn.Sequential(depthwise, pointwise).to(layer.weight.dtype).eval()


def separable_factors(kernel: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the best filters (in x m, 1, h, w) and mixing (out, in x m, 1, 1) for a kernel (out, in, h, w).

    The kernel of one input channel is a matrix (out, h x w); its best approximation by m filters is its
    truncated SVD (Eckart and Young 1936), for every channel alone. Both factors get the root of the singular
    value.
    """
    out, inner, height, width = kernel.shape
    matrices = kernel.double().permute(1, 0, 2, 3).reshape(inner, out, height * width)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    count = min(multiplier, values.shape[1])
    root = values[:, :count].sqrt()
    filters = torch.zeros(inner, multiplier, height * width, dtype=torch.float64)
    mixing = torch.zeros(out, inner, multiplier, dtype=torch.float64)
    filters[:, :count] = root[:, :, None] * right[:, :count]
    mixing[:, :, :count] = (left[:, :, :count] * root[:, None, :]).permute(1, 0, 2)
    return (
        filters.reshape(inner * multiplier, 1, height, width).to(kernel.dtype),
        mixing.reshape(out, inner * multiplier, 1, 1).to(kernel.dtype),
    )


def _pair(lengths: tuple[int, ...]) -> tuple[int, int]:
    return lengths[0], lengths[1]
