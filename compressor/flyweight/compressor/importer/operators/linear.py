"""Matrix products, as linear layers where one side is a constant matrix."""

from collections.abc import Callable, Mapping
from typing import Final

import onnx
import torch
from torch import Tensor, nn

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Symbol


def _matmul(operation: Operation) -> Outcome:
    """Build a layer of a product with a constant matrix, and of the bias that is added to it right after."""
    x, weight = operation.tensor(0), operation.tensor(1)
    if not weight.is_constant or weight.rank != 2 or x.rank < 2 or not weight.tensor.is_floating_point():
        return operation.call(torch.matmul, x, weight)
    consumer = operation.walk.sole_consumer(operation.node, "Add")
    bias = _bias_in(operation, consumer, weight.tensor.shape[1]) if consumer is not None else None
    if consumer is not None and bias is not None:
        operation.walk.absorb(operation.node, consumer)
    return linear(operation, x, (weight, weight.tensor.T), (bias, None if bias is None else bias.tensor))


def _bias_in(operation: Operation, add: onnx.NodeProto, wide: int) -> Symbol | None:
    """Return the constant vector that an Add node adds, if it is one."""
    product = operation.node.output[0]
    others = [name for name in add.input if name != product]
    value = operation.walk.lookup(others[0]) if len(others) == 1 else None
    if isinstance(value, Symbol) and value.is_constant and tuple(value.tensor.shape) == (wide,):
        return value
    return None


def _gemm(operation: Operation) -> Outcome:
    """Return alpha A' B' + beta C; a layer where B and C are constants."""
    x, weight, bias = operation.tensor(0), operation.tensor(1), operation.optional(2)
    alpha, beta = operation.real("alpha", 1.0), operation.real("beta", 1.0)
    if operation.integer("transA", 0):
        x = operation.call(torch.transpose, x, 0, 1)
    matrix = weight.tensor if operation.integer("transB", 0) else weight.tensor.T
    plain = weight.is_constant and (bias is None or bias.is_constant)
    if plain and (bias is None or _is_vector(bias.tensor, matrix.shape[0])):
        added = None
        if bias is not None:
            added = beta * bias.tensor.reshape(-1).expand(matrix.shape[0])
        return linear(operation, x, (weight, alpha * matrix if alpha != 1.0 else matrix), (bias, added))
    if operation.integer("transB", 0):
        weight = operation.call(torch.transpose, weight, 0, 1)
    product = operation.call(torch.matmul, x, weight)
    if alpha != 1.0:
        product = operation.call(torch.mul, product, alpha)
    return product if bias is None else operation.call(torch.add, product, bias, alpha=beta)


def _is_vector(bias: Tensor, wide: int) -> bool:
    return bias.numel() in {1, wide} and (bias.ndim <= 1 or bias.numel() == bias.shape[-1])


def linear(
    operation: Operation, x: Symbol, weight: tuple[Symbol, Tensor], bias: tuple[Symbol | None, Tensor | None]
) -> Symbol:
    """Return x through a linear layer.

    Args:
        operation: the node.
        x: [..., inputs].
        weight: the constant as the graph has it, which names the layer, and as the layer wants it:
            [outputs, inputs].
        bias: the same for the bias; None for none.
    """
    wide, narrow = weight[1].shape
    layer = nn.Linear(narrow, wide, bias=bias[1] is not None)
    layer.weight = nn.Parameter(weight[1].detach().clone().contiguous())
    if bias[1] is not None:
        layer.bias = nn.Parameter(bias[1].detach().clone().contiguous())
    return operation.layer(layer, [weight[0], bias[0]], x)


def _einsum(operation: Operation) -> Outcome:
    operands = [operation.tensor(index) for index in range(len(operation.inputs))]
    return operation.call(torch.einsum, operation.text("equation", "").replace(" ", ""), *operands)


def _fused_matmul(operation: Operation) -> Outcome:
    x, y = operation.tensor(0), operation.tensor(1)
    if operation.integer("transA", 0):
        x = operation.call(torch.transpose, x, -1, -2)
    if operation.integer("transB", 0):
        y = operation.call(torch.transpose, y, -1, -2)
    product = operation.call(torch.matmul, x, y)
    alpha = operation.real("alpha", 1.0)
    return product if alpha == 1.0 else operation.call(torch.mul, product, alpha)


def _det(operation: Operation) -> Outcome:
    return operation.call(torch.linalg.det, operation.tensor(0))


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "Det": _det,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "com.microsoft.FusedMatMul": _fused_matmul,
}
