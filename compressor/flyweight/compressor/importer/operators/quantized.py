"""Weights stored as integers become floating-point weights; models that compute with integers are refused."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Symbol

_QUANTIZED: Final = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"})


def is_quantized(title: str) -> bool:
    """Return whether an operator is one that quantizers write."""
    name = title.rpartition(".")[2]
    return name in _QUANTIZED or name.startswith(
        ("QLinear", "MatMulNBits", "DynamicQuantize", "MatMulIntegerToFloat")
    )


def _dequantize(operation: Operation) -> Outcome:
    """Return constant weights as floating-point numbers: scale * (x - zero point)."""
    scale, quantized = operation.constant(1), operation.constant(0)
    zero = operation.constant(2) if operation.has(2) else torch.zeros((), dtype=quantized.dtype)
    if operation.integer("block_size", 0):
        raise operation.refusal("holds weights quantized in blocks")
    axis = operation.integer("axis", 1)
    weights = _along(scale, axis, quantized) * (
        quantized.to(scale.dtype) - _along(zero, axis, quantized).to(scale.dtype)
    )
    origin = operation.value(0)
    return Symbol(None, weights, origin=origin.origin if isinstance(origin, Symbol) else "")


def _along(values: Tensor, axis: int, of: Tensor) -> Tensor:
    """Return one value for each place of an axis so that it broadcasts to a tensor."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * of.ndim
    shape[axis] = -1
    return values.reshape(shape)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {"DequantizeLinear": _dequantize}
