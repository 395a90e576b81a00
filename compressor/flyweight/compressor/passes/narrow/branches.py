"""Two layers of one input whose answers are added, as one layer (Ding et al. 2021, "RepVGG", section 3.3)."""

import torch
from torch import Tensor, nn


def merged_branches(layer: nn.Module, beside: nn.Module | None) -> nn.Module | None:
    """Return a layer that answers the sum of both, or None where no single layer does.

    Args:
        layer: a convolution or a linear layer.
        beside: another of its kind, a normalisation, or None for the identity.
    """
    if isinstance(layer, nn.Linear) and isinstance(beside, nn.Linear):
        return _linear(layer, beside)
    if not isinstance(layer, nn.Conv2d) or not _is_centred(layer):
        return None
    if isinstance(beside, nn.Conv2d):
        own = (layer.stride, layer.groups, layer.out_channels)
        alike = own == (beside.stride, beside.groups, beside.out_channels) and _is_centred(beside)
        return _convolution(layer, beside.weight, beside.bias, beside.kernel_size) if alike else None
    scale, bias = torch.ones(layer.out_channels), None
    if isinstance(beside, nn.BatchNorm2d) and beside.running_mean is not None:
        scale, bias = _scale_and_bias(beside)
    elif beside is not None:
        return None
    if layer.stride != (1, 1) or layer.in_channels != layer.out_channels:
        return None
    return _convolution(layer, _identity(layer, scale), bias, (1, 1))


def _is_centred(layer: nn.Conv2d) -> bool:
    """Return whether the middle of the kernel meets the same place whatever the kernel's size."""
    return (
        layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and all(size % 2 == 1 for size in layer.kernel_size)
        and layer.padding == tuple(size // 2 for size in layer.kernel_size)
    )


def _identity(layer: nn.Conv2d, scale: Tensor) -> Tensor:
    """Return a kernel of 1 x 1 that multiplies each channel by its scale."""
    kernel = torch.zeros(layer.out_channels, layer.in_channels // layer.groups, 1, 1)
    for channel in range(layer.out_channels):
        kernel[channel, channel % kernel.shape[1]] = scale[channel]
    return kernel


def _scale_and_bias(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None, "checked by the caller"
    assert norm.running_var is not None, "there are both or none"
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean * scale
    return scale.detach(), (bias if norm.bias is None else bias + norm.bias).detach()


def _convolution(layer: nn.Conv2d, kernel: Tensor, bias: Tensor | None, size: tuple[int, ...]) -> nn.Conv2d:
    """Return `layer` with another kernel, of the same or another size, and its bias added to its own."""
    tall, wide = (max(own, other) for own, other in zip(layer.kernel_size, size, strict=True))
    merged = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        (tall, wide),
        stride=(layer.stride[0], layer.stride[1]),
        padding=(tall // 2, wide // 2),
        groups=layer.groups,
    ).to(layer.weight.dtype)
    with torch.no_grad():
        merged.weight.zero_()
        assert merged.bias is not None, "made with one"
        merged.bias.zero_()
        for weight, own_bias in ((layer.weight, layer.bias), (kernel, bias)):
            top, left = (tall - weight.shape[2]) // 2, (wide - weight.shape[3]) // 2
            merged.weight[:, :, top : top + weight.shape[2], left : left + weight.shape[3]] += weight
            if own_bias is not None:
                merged.bias += own_bias
    return merged.eval()


def _linear(layer: nn.Linear, beside: nn.Linear) -> nn.Linear | None:
    if layer.weight.shape != beside.weight.shape:
        return None
    merged = nn.Linear(layer.in_features, layer.out_features).to(layer.weight.dtype)
    with torch.no_grad():
        merged.weight.copy_(layer.weight + beside.weight)
        merged.bias.zero_()
        for bias in (layer.bias, beside.bias):
            if bias is not None:
                merged.bias.add_(bias)
    return merged.eval()
