"""Reductions over axes, and running sums."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome

_Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _over_axes(function: _Reduce) -> Callable[[Operation], Outcome]:
    """Make a builder for a function of a tensor, axes and whether to keep them."""

    def build(operation: Operation) -> Outcome:
        x = operation.tensor(0)
        axes = operation.axes(1, x.rank)
        if not axes:
            if operation.integer("noop_with_empty_axes", 0):
                return operation.call(_elementwise(function), x)
            axes = list(range(x.rank))
        return operation.call(function, x, axes, bool(operation.integer("keepdims", 1)))

    return build


def _elementwise(function: _Reduce) -> Callable[[Tensor], Tensor]:
    """Return what a reduction over no axis does to each element."""
    known: dict[_Reduce, Callable[[Tensor], Tensor]] = {
        norm_1: torch.abs,
        norm_2: torch.abs,
        log_sum: torch.log,
        sum_squares: torch.square,
    }
    return known.get(function, torch.clone)


def mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001  # as torch's own reductions
    """Return the mean; of integers, cut towards zero."""
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return x.double().mean(axes, keepdim=keep).to(x.dtype)


def total(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum, in the type of the tensor."""
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def maximum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the largest element."""
    return x.amax(axes, keepdim=keep)


def minimum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the smallest element."""
    return x.amin(axes, keepdim=keep)


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the product, one axis after the other, the last first."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def norm_1(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum of magnitudes."""
    return total(x.abs(), axes, keep)


def norm_2(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the root of the sum of squares."""
    return sum_squares(x, axes, keep).sqrt().to(x.dtype)


def sum_squares(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the sum of squares."""
    return total(x.square(), axes, keep)


def log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the logarithm of the sum."""
    return total(x, axes, keep).log()


def log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:  # noqa: FBT001
    """Return the logarithm of the sum of exponentials."""
    return x.logsumexp(axes, keepdim=keep)


def _arg(*, largest: bool) -> Callable[[Operation], Outcome]:
    """Make a builder for where the largest or smallest element stands."""

    def build(operation: Operation) -> Outcome:
        x, axis = operation.tensor(0), operation.integer("axis", 0)
        keep, last = bool(operation.integer("keepdims", 1)), operation.integer("select_last_index", 0)
        if last:
            return operation.call(last_place, x, axis, keep, largest)
        return operation.call(torch.argmax if largest else torch.argmin, x, dim=axis, keepdim=keep)

    return build


def last_place(x: Tensor, axis: int, keep: bool, largest: bool) -> Tensor:  # noqa: FBT001
    """Return where the largest or smallest element stands last along an axis."""
    backwards = x.flip(axis)
    find = torch.argmax if largest else torch.argmin
    return x.shape[axis] - 1 - find(backwards, dim=axis, keepdim=keep)


def _running(function: Callable[..., Tensor]) -> Callable[[Operation], Outcome]:
    def build(operation: Operation) -> Outcome:
        x, axis = operation.tensor(0), int(operation.constant(1).reshape(-1)[0])
        exclusive, backwards = operation.integer("exclusive", 0), operation.integer("reverse", 0)
        if backwards:
            x = operation.call(torch.flip, x, [axis])
        y = operation.call(function, x, axis, dtype=x.tensor.dtype)
        if exclusive:
            y = operation.call(shifted, y, axis, 0 if function is torch.cumsum else 1)
        return operation.call(torch.flip, y, [axis]) if backwards else y

    return build


def shifted(x: Tensor, axis: int, first: int) -> Tensor:
    """Return x one place later along an axis, with `first` before it and without its last element."""
    start = torch.full_like(x.narrow(axis, 0, 1), first)
    return torch.cat([start, x.narrow(axis, 0, x.shape[axis] - 1)], axis)


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "CumProd": _running(torch.cumprod),
    "CumSum": _running(torch.cumsum),
    "ReduceL1": _over_axes(norm_1),
    "ReduceL2": _over_axes(norm_2),
    "ReduceLogSum": _over_axes(log_sum),
    "ReduceLogSumExp": _over_axes(log_sum_exp),
    "ReduceMax": _over_axes(maximum),
    "ReduceMean": _over_axes(mean),
    "ReduceMin": _over_axes(minimum),
    "ReduceProd": _over_axes(product),
    "ReduceSum": _over_axes(total),
    "ReduceSumSquare": _over_axes(sum_squares),
}
