"""The largest and smallest elements."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Symbol, constant


def _top(operation: Operation) -> Outcome:
    x, axis = operation.tensor(0), operation.integer("axis", -1)
    count: Symbol = constant(operation.integer("k", 1)) if operation.opset < 10 else operation.number(1)
    largest = bool(operation.integer("largest", 1))
    call = torch.topk if x.tensor.is_floating_point() else first_of_equals
    several = operation.call(call, x, count, dim=axis, largest=largest)
    return [operation.builder.part(several, place) for place in (0, 1)]


def first_of_equals(x: Tensor, count: int, dim: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Return what torch.topk does, of equal elements the first: integers are often equal."""
    values, places = torch.sort(x, dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, count), places.narrow(dim, 0, count)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {"TopK": _top}
