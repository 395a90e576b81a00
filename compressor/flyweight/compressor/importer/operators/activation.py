"""Activation functions, softmax and dropout."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.operators.elementwise import unary

_Build = Callable[[Operation], Outcome]


def _leaky(operation: Operation) -> Outcome:
    return operation.call(functional.leaky_relu, operation.tensor(0), operation.real("alpha", 0.01))


def _elu(operation: Operation) -> Outcome:
    return operation.call(functional.elu, operation.tensor(0), operation.real("alpha", 1.0))


def _celu(operation: Operation) -> Outcome:
    return operation.call(functional.celu, operation.tensor(0), operation.real("alpha", 1.0))


def _selu(operation: Operation) -> Outcome:
    alpha = operation.real("alpha", 1.6732631921768188)
    gamma = operation.real("gamma", 1.0507010221481323)
    return operation.call(selu, operation.tensor(0), alpha, gamma)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return gamma * elu(x, alpha); Klambauer et al. 2017, equation 2."""
    return gamma * functional.elu(x, alpha)


def _hard_sigmoid(operation: Operation) -> Outcome:
    x, alpha, beta = operation.tensor(0), operation.real("alpha", 0.2), operation.real("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return operation.call(functional.hardsigmoid, x)
    return operation.call(hard_sigmoid, x, alpha, beta)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta, cut to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def _gelu(operation: Operation) -> Outcome:
    form = operation.text("approximate", "none")
    return operation.call(functional.gelu, operation.tensor(0), approximate=form)


def _fast_gelu(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    if operation.has(1):
        x = operation.call(torch.add, x, operation.tensor(1))
    return operation.call(functional.gelu, x, approximate="tanh")


def _bias_gelu(operation: Operation) -> Outcome:
    return operation.call(
        functional.gelu, operation.call(torch.add, operation.tensor(0), operation.tensor(1))
    )


def _quick_gelu(operation: Operation) -> Outcome:
    return operation.call(swish, operation.tensor(0), operation.real("alpha", 1.702))


def _swish(operation: Operation) -> Outcome:
    return operation.call(swish, operation.tensor(0), operation.real("alpha", 1.0))


def swish(x: Tensor, alpha: float) -> Tensor:
    """Return x * sigmoid(alpha * x); Ramachandran et al. 2017."""
    return functional.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def _thresholded(operation: Operation) -> Outcome:
    return operation.call(functional.threshold, operation.tensor(0), operation.real("alpha", 1.0), 0.0)


def _shrink(operation: Operation) -> Outcome:
    bias, limit = operation.real("bias", 0.0), operation.real("lambd", 0.5)
    return operation.call(shrink, operation.tensor(0), bias, limit)


def shrink(x: Tensor, bias: float, limit: float) -> Tensor:
    """Return x moved by `bias` towards zero outside [-limit, limit], and zero inside."""
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


def _prelu(operation: Operation) -> Outcome:
    x, slope = operation.tensor(0), operation.tensor(1)
    shape = list(slope.tensor.shape)
    per_channel = x.rank >= 2 and len(shape) == x.rank - 1 and all(length == 1 for length in shape[1:])
    per_channel = per_channel or (operation.opset < 7 and len(shape) == 1)
    if slope.is_constant and (per_channel or slope.tensor.numel() == 1):
        layer = nn.PReLU(slope.tensor.numel())
        layer.weight = nn.Parameter(slope.tensor.reshape(-1).clone())
        return operation.layer(layer, [slope], x)
    return operation.call(prelu, x, slope)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Return x where it is positive and slope * x elsewhere; the slope broadcasts to x."""
    return torch.where(x < 0, slope * x, x)


def _softmax_by(function: Callable[..., object]) -> _Build:
    """Make a builder for Softmax and its kin: before opset 13 they see the tensor as a matrix."""

    def build(operation: Operation) -> Outcome:
        x = operation.tensor(0)
        if operation.opset >= 13:
            return operation.call(function, x, dim=operation.integer("axis", -1))
        axis = operation.integer("axis", 1) % x.rank
        if axis == x.rank - 1:
            return operation.call(function, x, dim=axis)
        flat = operation.call(torch.flatten, x, axis)
        soft = operation.call(function, flat, dim=axis)
        return operation.builder.method("view_as", soft, x)

    return build


def _hardmax(x: Tensor, dim: int) -> Tensor:
    """Return one at the first maximum along an axis and zero elsewhere."""
    first = torch.argmax(x, dim=dim, keepdim=True)
    return torch.zeros_like(x).scatter(dim, first, 1.0)


def _dropout(operation: Operation) -> Outcome:
    """Keep dropout as a layer: it does nothing until the module is trained."""
    x = operation.tensor(0)
    ratio = operation.real("ratio", 0.5)
    if operation.has(1):
        ratio = float(operation.constant(1))
    if operation.has(2) and bool(operation.constant(2)):
        raise operation.refusal("drops at random also when the model answers")
    result = x if ratio == 0.0 or x.is_constant else operation.layer(nn.Dropout(ratio), [], x)
    outputs = [result]
    if len(operation.node.output) > 1:
        outputs.append(operation.call(torch.ones_like, x, dtype=torch.bool))
    return outputs


BUILDERS: Final[Mapping[str, _Build]] = {
    "Celu": _celu,
    "Dropout": _dropout,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": unary(functional.hardswish),
    "Hardmax": _softmax_by(_hardmax),
    "LeakyRelu": _leaky,
    "LogSoftmax": _softmax_by(torch.log_softmax),
    "Mish": unary(functional.mish),
    "PRelu": _prelu,
    "Relu": unary(torch.relu),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": unary(torch.sigmoid),
    "Softmax": _softmax_by(torch.softmax),
    "Softplus": unary(functional.softplus),
    "Softsign": unary(functional.softsign),
    "Swish": _swish,
    "Tanh": unary(torch.tanh),
    "ThresholdedRelu": _thresholded,
    "com.microsoft.BiasGelu": _bias_gelu,
    "com.microsoft.FastGelu": _fast_gelu,
    "com.microsoft.Gelu": _gelu,
    "com.microsoft.QuickGelu": _quick_gelu,
}
