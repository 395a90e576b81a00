"""Tensors made from a shape or a range, and triangles."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import LONGEST_SHAPE, Numbers, constant


def _filled(operation: Operation) -> Outcome:
    shape = operation.numbers(0)
    value = operation.tensor_attribute("value", torch.zeros(1))
    number = value.reshape(-1)[0].item()
    lengths = [int(length) for length in shape.known]
    if (
        shape.is_constant
        and len(lengths) == 1
        and lengths[0] <= LONGEST_SHAPE
        and not value.is_floating_point()
    ):
        return Numbers((constant(number),) * lengths[0], has_axis=True, dtype=value.dtype)
    return operation.call(torch.full, list(shape.items), number, dtype=value.dtype)


def _range(operation: Operation) -> Outcome:
    start, end, step = (operation.number(index) for index in range(3))
    dtype = operation.numbers(0).dtype
    return operation.call(torch.arange, start, end, step, dtype=dtype)


def _eye(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    dtype = operation.dtype("dtype", x.tensor.dtype)
    return operation.call(eye_like, x, operation.integer("k", 0), dtype)


def eye_like(x: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """Return ones on the k-th diagonal of a matrix as large as x."""
    rows, columns = (torch.arange(length, device=x.device) for length in x.shape)
    return (columns - rows.unsqueeze(1) == k).to(dtype)


def _triangle(operation: Operation) -> Outcome:
    k = operation.number(1) if operation.has(1) else constant(0)
    function = torch.triu if operation.integer("upper", 1) else torch.tril
    return operation.call(function, operation.tensor(0), k)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "ConstantOfShape": _filled,
    "EyeLike": _eye,
    "Range": _range,
    "Trilu": _triangle,
}
