"""Pooling over windows and over whole planes."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.operators.padding import Window
from flyweight.compressor.importer.values import Symbol

_MAXIMUM: Final = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: Final = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _maximum(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    window = Window(operation, operation.integers("kernel_shape", []), pools=True)
    x = window.prepare(operation, x, value=float("-inf"))
    return operation.call(
        _MAXIMUM[len(window.kernel)],
        x,
        tuple(window.kernel),
        tuple(window.stride),
        tuple(window.pads),
        tuple(window.dilation),
        ceil_mode=bool(operation.integer("ceil_mode", 0)),
    )


def _average(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    window = Window(operation, operation.integers("kernel_shape", []), pools=True)
    if any(gap != 1 for gap in window.dilation):
        raise operation.refusal("averages elements that lie apart (dilations)")
    include = bool(operation.integer("count_include_pad", 0))
    pooled = _averaged(operation, window, window.prepare(operation, x), include=include)
    if not window.padded_before or include:
        return pooled
    # Averages over a window that includes padding, by the share of it that is no padding.
    ones = operation.call(torch.ones_like, x)
    share = _averaged(operation, window, window.prepare(operation, ones), include=include)
    return operation.call(torch.div, pooled, share)


def _averaged(operation: Operation, window: Window, x: Symbol, *, include: bool) -> Symbol:
    return operation.call(
        _AVERAGE[len(window.kernel)],
        x,
        tuple(window.kernel),
        tuple(window.stride),
        tuple(window.pads),
        ceil_mode=bool(operation.integer("ceil_mode", 0)),
        count_include_pad=include,
    )


def _norm(operation: Operation) -> Outcome:
    """Build the p-norm over windows: (mean |x|^p times the window's elements) ** (1 / p)."""
    window = Window(operation, operation.integers("kernel_shape", []), pools=True)
    if any(gap != 1 for gap in window.dilation):
        raise operation.refusal("takes the norm of elements that lie apart (dilations)")
    p = operation.integer("p", 2)
    x = window.prepare(operation, operation.tensor(0))
    powers = operation.call(torch.pow, operation.call(torch.abs, x), p)
    mean = _averaged(operation, window, powers, include=True)
    elements = 1
    for length in window.kernel:
        elements *= length
    return operation.call(torch.pow, operation.call(torch.mul, mean, elements), 1.0 / p)


def _over_planes(function: Callable[..., Tensor]) -> Callable[[Operation], Outcome]:
    """Make a builder that reduces all axes after the channels to length 1."""

    def build(operation: Operation) -> Outcome:
        x = operation.tensor(0)
        return operation.call(function, x, list(range(2, x.rank)), keepdim=True)

    return build


def _global_norm(operation: Operation) -> Outcome:
    x, p = operation.tensor(0), float(operation.integer("p", 2))
    return operation.call(torch.linalg.vector_norm, x, p, list(range(2, x.rank)), keepdim=True)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "AveragePool": _average,
    "GlobalAveragePool": _over_planes(torch.mean),
    "GlobalLpPool": _global_norm,
    "GlobalMaxPool": _over_planes(torch.amax),
    "LpPool": _norm,
    "MaxPool": _maximum,
}
