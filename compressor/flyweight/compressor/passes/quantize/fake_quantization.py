"""Quantization inside a module that trains: values are rounded on the way forward, gradients pass through."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

WEIGHTED: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# A range follows the batches with this momentum: about the last hundred of them count (Jacob et al. 2018,
# section 3.1, smooths over thousands of steps; fine-tuning here has hundreds).
_MOMENTUM: Final = 0.01


class RoundedWeight(nn.Module):
    """A parametrization: the weight a layer computes with, on a symmetric grid for each output channel.

    s = max|w| / (2**(bits-1) - 1), w' = s * round(w / s); the gradient by w is that by w' (the
    straight-through estimator: Bengio et al. 2013, section 4). A factor on a channel's output, as batch
    normalisation has, only scales the channel's grid, so nothing changes when it is folded into the weight.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.largest = 2 ** (bits - 1) - 1

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight, first axis = output channels, of the same shape."""
        rows = weight.detach().flatten(1)
        scales = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / self.largest
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(
            weight, scales, zeros, 0, -self.largest, self.largest
        )
        return rounded


class RoundedInput:
    """A forward pre-hook: what a layer reads, on an unsigned grid over the range seen in training.

    s = (high - low) / (2**bits - 1), z = round(-low / s) (Jacob et al. 2018, equation 1); the range is a
    moving average of the batches' extremes, widened to hold zero. Gradients pass for values in the range.
    """

    def __init__(self, bits: int) -> None:
        self.largest = 2**bits - 1
        self.low = self.high = 0.0
        self.seen = False

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs with the first one rounded; integers pass as they are."""
        first = inputs[0]
        if not first.is_floating_point():
            return inputs
        if module.training or not self.seen:
            self._follow(first.detach())
        scale = (self.high - self.low) / self.largest or 1.0
        zero = round(-self.low / scale)
        rounded = torch.fake_quantize_per_tensor_affine(
            first, scale, min(max(zero, 0), self.largest), 0, self.largest
        )
        return (rounded, *inputs[1:])

    def _follow(self, values: Tensor) -> None:
        low, high = min(float(values.amin()), 0.0), max(float(values.amax()), 0.0)
        if not self.seen:
            self.low, self.high, self.seen = low, high, True
            return
        self.low += _MOMENTUM * (low - self.low)
        self.high += _MOMENTUM * (high - self.high)


@contextmanager
def fake_quantized(module: nn.Module, weight_bits: int, activation_bits: int) -> Iterator[int]:
    """Let a module compute as if quantized while the block runs, and yield how many of its layers do.

    Afterwards its weights are those it computed with: on their grids, and the module is what it was.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, WEIGHTED)]
    handles: list[RemovableHandle] = []
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", RoundedWeight(weight_bits))
        if activation_bits:
            handles.append(layer.register_forward_pre_hook(RoundedInput(activation_bits)))
    try:
        yield len(layers)
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
