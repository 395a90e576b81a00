"""Normalisation layers."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome

_BATCH: Final = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: Final = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _batch(operation: Operation) -> Outcome:
    """Build batch normalisation as it answers; trained further, it follows the batches again."""
    x, *given = (operation.tensor(index) for index in range(5))
    epsilon = operation.real("epsilon", 1e-5)
    if operation.integer("training_mode", 0) or not operation.integer("spatial", 1):
        raise operation.refusal("normalises by the batch it answers, or each place by itself")
    if not all(value.is_constant for value in given) or x.rank not in _BATCH:
        scale, bias, *moving = given
        return operation.call(functional.batch_norm, x, *moving, scale, bias, training=False, eps=epsilon)
    gamma, beta, mean, variance = (value.tensor for value in given)
    # ONNX keeps the share of the old average, torch that of the new one.
    layer = _BATCH[x.rank](len(gamma), eps=epsilon, momentum=1.0 - operation.real("momentum", 0.9))
    layer.weight, layer.bias = nn.Parameter(gamma.clone()), nn.Parameter(beta.clone())
    layer.running_mean, layer.running_var = mean.clone(), variance.clone()
    layer.eval()
    return operation.layer(layer, given, x)


def _instance(operation: Operation) -> Outcome:
    x, scale, bias = (operation.tensor(index) for index in range(3))
    epsilon = operation.real("epsilon", 1e-5)
    if not (scale.is_constant and bias.is_constant) or x.rank not in _INSTANCE:
        return operation.call(functional.instance_norm, x, weight=scale, bias=bias, eps=epsilon)
    layer = _INSTANCE[x.rank](len(scale.tensor), eps=epsilon, affine=True)
    layer.weight, layer.bias = nn.Parameter(scale.tensor.clone()), nn.Parameter(bias.tensor.clone())
    return operation.layer(layer.eval(), [scale, bias], x)


def _group(operation: Operation) -> Outcome:
    x, scale, bias = (operation.tensor(index) for index in range(3))
    groups, epsilon = operation.integer("num_groups", 1), operation.real("epsilon", 1e-5)
    channels = x.tensor.shape[1]
    if not (scale.is_constant and bias.is_constant):
        if scale.tensor.shape[0] != channels:
            raise operation.refusal("computes a scale for each group")
        return operation.call(functional.group_norm, x, groups, scale, bias, epsilon)
    layer = nn.GroupNorm(groups, channels, eps=epsilon)
    # Opsets 18 to 20 scale each group, later ones each channel.
    layer.weight = nn.Parameter(scale.tensor.repeat_interleave(channels // len(scale.tensor)))
    layer.bias = nn.Parameter(bias.tensor.repeat_interleave(channels // len(bias.tensor)))
    return operation.layer(layer, [scale, bias], x)


def _layer(operation: Operation) -> Outcome:
    x, scale, bias = operation.tensor(0), operation.tensor(1), operation.optional(2)
    axis, epsilon = operation.integer("axis", -1) % x.rank, operation.real("epsilon", 1e-5)
    shape = list(x.tensor.shape[axis:])
    plain = scale.is_constant and (bias is None or bias.is_constant)
    if plain and list(scale.tensor.shape) == shape:
        layer = nn.LayerNorm(shape, eps=epsilon, bias=bias is not None)
        layer.weight = nn.Parameter(scale.tensor.clone())
        if bias is not None:
            layer.bias = nn.Parameter(bias.tensor.expand(shape).clone())
        y = operation.layer(layer, [scale, bias], x)
    else:
        y = operation.call(torch.mul, operation.call(standardise, x, axis, epsilon), scale)
        y = y if bias is None else operation.call(torch.add, y, bias)
    if len(operation.node.output) == 1:
        return y
    return [
        y,
        *(operation.builder.part(operation.call(moments, x, axis, epsilon), place) for place in (0, 1)),
    ]


def standardise(x: Tensor, axis: int, epsilon: float) -> Tensor:
    """Return x less its mean, by its standard deviation, over `axis` and all after it."""
    mean, inverse = moments(x, axis, epsilon)
    return (x - mean) * inverse


def moments(x: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the mean and 1 / sqrt(variance + epsilon) over `axis` and all after it, axes kept."""
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    return mean, torch.rsqrt(variance + epsilon)


def _root_mean_square(operation: Operation) -> Outcome:
    """Build x / sqrt(mean(x^2) + epsilon) * scale; Zhang and Sennrich 2019, equation 4."""
    x, scale = operation.tensor(0), operation.tensor(1)
    axis, epsilon = operation.integer("axis", -1) % x.rank, operation.real("epsilon", 1e-5)
    shape = list(x.tensor.shape[axis:])
    if not scale.is_constant or list(scale.tensor.shape) != shape:
        plain = operation.call(functional.rms_norm, x, shape, eps=epsilon)
        return operation.call(torch.mul, plain, scale)
    layer = nn.RMSNorm(shape, eps=epsilon)
    layer.weight = nn.Parameter(scale.tensor.clone())
    return operation.layer(layer, [scale], x)


def _skip_layer(operation: Operation) -> Outcome:
    """Build ONNX Runtime's sum of two tensors and a bias, normalised."""
    total = operation.call(torch.add, operation.tensor(0), operation.tensor(1))
    if operation.has(4):
        total = operation.call(torch.add, total, operation.tensor(4))
    scale, bias = operation.tensor(2), operation.optional(3)
    layer = nn.LayerNorm(
        list(scale.tensor.shape), eps=operation.real("epsilon", 1e-12), bias=bias is not None
    )
    layer.weight = nn.Parameter(scale.tensor.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.tensor.clone())
    return [operation.layer(layer, [scale, bias], total), None, None, total]


def _local_response(operation: Operation) -> Outcome:
    size = operation.integer("size", 1)
    settings = (operation.real("alpha", 1e-4), operation.real("beta", 0.75), operation.real("bias", 1.0))
    return operation.call(local_response, operation.tensor(0), size, *settings)


def local_response(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divide by (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta.

    Krizhevsky et al. 2012, section 3.3; the window begins floor((size - 1) / 2) channels before.
    """
    before = (size - 1) // 2
    planes = x.square().flatten(2).unsqueeze(1)
    padded = functional.pad(planes, [0, 0, before, size - 1 - before])
    mean = functional.avg_pool2d(padded, (size, 1), stride=1).squeeze(1)
    return x / (bias + alpha * mean.view_as(x)) ** beta


def _unit(operation: Operation) -> Outcome:
    p, axis = operation.integer("p", 2), operation.integer("axis", -1)
    return operation.call(functional.normalize, operation.tensor(0), float(p), axis)


def _mean_variance(operation: Operation) -> Outcome:
    return operation.call(mean_variance, operation.tensor(0), operation.integers("axes", [0, 2, 3]))


def mean_variance(x: Tensor, axes: list[int]) -> Tensor:
    """Return (x - mean) / standard deviation over some axes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "LpNormalization": _unit,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _root_mean_square,
    "SimplifiedLayerNormalization": _root_mean_square,
    "com.microsoft.SkipLayerNormalization": _skip_layer,
}
