"""Reading and writing at places given by tensors."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Symbol

_REDUCTIONS: Final = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _gather(operation: Operation) -> Outcome:
    """Build an embedding of rows of a constant matrix; reading along an axis otherwise."""
    x, indices = operation.tensor(0), operation.tensor(1)
    axis = operation.integer("axis", 0) % x.rank
    table = x.is_constant and x.rank == 2 and axis == 0 and x.tensor.is_floating_point()
    if table and not indices.is_constant:
        layer = nn.Embedding(x.tensor.shape[0], x.tensor.shape[1], dtype=x.tensor.dtype)
        layer.weight = operation.builder.parameter(x)
        return operation.layer(layer, [x], _counted_from_the_start(operation, indices, x, axis))
    if indices.rank == 0 and indices.is_constant:
        return operation.call(torch.select, x, axis, int(indices.tensor))
    indices = _counted_from_the_start(operation, indices, x, axis)
    if indices.rank == 1:
        return operation.call(torch.index_select, x, axis, indices)
    return operation.call(gather, x, axis, indices)


def _counted_from_the_start(operation: Operation, indices: Symbol, x: Symbol, axis: int) -> Symbol:
    """Return indices as 64-bit integers; negative ones, seen in the sample, count from the end."""
    if indices.tensor.dtype is not torch.int64:
        indices = operation.builder.method("to", indices, torch.int64)
    if not indices.tensor.numel() or int(indices.tensor.min()) >= 0:
        return indices
    return operation.call(from_the_start, indices, operation.builder.size(x, axis))


def from_the_start(indices: Tensor, length: int) -> Tensor:
    """Return indices with `length` added to the negative ones."""
    return torch.where(indices < 0, indices + length, indices)


def gather(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Read along an axis at an array of places, whose axes take its place."""
    read = x.index_select(axis, indices.reshape(-1))
    return read.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(operation: Operation) -> Outcome:
    x, axis = operation.tensor(0), operation.integer("axis", 0)
    indices = _counted_from_the_start(operation, operation.tensor(1), x, axis % x.rank)
    return operation.call(torch.gather, x, axis, indices)


def _gather_nd(operation: Operation) -> Outcome:
    batch = operation.integer("batch_dims", 0)
    return operation.call(gather_nd, operation.tensor(0), operation.tensor(1), batch)


def gather_nd(x: Tensor, places: Tensor, batch: int) -> Tensor:
    """Read at places whose last axis holds the coordinates, after `batch` axes that both share."""
    if batch:
        shared = x.shape[:batch]
        rows = torch.arange(x.shape[:batch].numel(), device=x.device)
        rows = rows.reshape(*shared, *([1] * (places.ndim - batch)))
        flat = x.reshape(-1, *x.shape[batch:])
        coordinates = (rows.expand((*places.shape[:-1], 1))[..., 0], *places.unbind(-1))
        return flat[coordinates]
    return x[places.unbind(-1)]


def _scatter_elements(operation: Operation) -> Outcome:
    x, axis = operation.tensor(0), operation.integer("axis", 0)
    indices = _counted_from_the_start(operation, operation.tensor(1), x, axis % x.rank)
    reduction = operation.text("reduction", "none")
    if reduction == "none":
        return operation.call(torch.scatter, x, axis, indices, operation.tensor(2))
    return operation.call(
        torch.scatter_reduce, x, axis, indices, operation.tensor(2), _REDUCTIONS[reduction], include_self=True
    )


def _scatter_nd(operation: Operation) -> Outcome:
    reduction = operation.text("reduction", "none")
    if reduction not in {"none", "add"}:
        raise operation.refusal(f"combines what it writes by {reduction}")
    return operation.call(
        scatter_nd, operation.tensor(0), operation.tensor(1), operation.tensor(2), add=reduction == "add"
    )


def scatter_nd(x: Tensor, places: Tensor, updates: Tensor, *, add: bool) -> Tensor:
    """Return x with `updates` written, or added, at places whose last axis holds the coordinates."""
    return x.index_put(places.unbind(-1), updates, accumulate=add)


def _one_hot(operation: Operation) -> Outcome:
    depth, values = operation.number(1), operation.tensor(2)
    return operation.call(one_hot, operation.tensor(0), depth, values, operation.integer("axis", -1))


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """Return values[1] where a new axis' place is the index, values[0] elsewhere; indices may be negative."""
    places = torch.arange(int(depth), device=indices.device)
    known = (indices.to(torch.int64) % int(depth)).unsqueeze(axis)
    shape = [1] * known.ndim
    shape[axis] = -1
    known_range = (indices >= -depth) & (indices < depth)
    hit = (known == places.reshape(shape)) & known_range.unsqueeze(axis)
    return torch.where(hit, values[1], values[0])


def _non_zero(operation: Operation) -> Outcome:
    return operation.call(non_zero, operation.tensor(0))


def non_zero(x: Tensor) -> Tensor:
    """Return the coordinates of elements that are not zero, one column for each."""
    return torch.nonzero(x).T.contiguous()


def _compress(operation: Operation) -> Outcome:
    x, condition = operation.tensor(0), operation.tensor(1)
    axis = operation.integer("axis", 0) if "axis" in operation.attributes else None
    return operation.call(compress, x, condition, axis)


def compress(x: Tensor, condition: Tensor, axis: int | None) -> Tensor:
    """Return what stands where a condition holds; without an axis, of the elements in a row."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, torch.nonzero(condition).reshape(-1))


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
