"""Arithmetic on shapes: operators whose inputs are numbers that depend on the lengths of axes.

Exporters write x.view(x.size(0), -1, 12, 64) as Shape, Gather, Unsqueeze, Concat and Reshape on tensors; here
it becomes arithmetic on Python numbers again, which stays symbolic when the module is traced.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import torch

from flyweight.compressor.importer.operation import Operation
from flyweight.compressor.importer.values import Number, Numbers, Symbol, Value, as_numbers, constant

_Rule: TypeAlias = Callable[[Operation, Sequence[Numbers]], Value | list[Value] | None]


def on_numbers(operation: Operation) -> Value | list[Value] | None:
    """Return what an operation makes of numbers, or None when it must be done on tensors."""
    values = [value for value in operation.inputs if value is not None]
    if not any(isinstance(value, Numbers) for value in values) or operation.node.op_type not in _RULES:
        return None
    inputs = [None if value is None else as_numbers(value) for value in operation.inputs]
    if any(
        found is None and value is not None for found, value in zip(inputs, operation.inputs, strict=True)
    ):
        return None
    given = [found for found in inputs if found is not None]
    return _RULES[operation.node.op_type](operation, given)


def _choose(condition: Number, first: Number, second: Number) -> Number:
    return first if condition else second


def _quotient(first: Number, second: Number) -> Number:
    """Divide as ONNX does: integers are cut towards zero; lengths are never negative."""
    if isinstance(first, float) or isinstance(second, float):
        return first / second
    return first // second


def _remainder(first: Number, second: Number) -> Number:
    return first % second


def _each(function: Callable[..., object], dtype: torch.dtype | None = None) -> _Rule:
    """Make a rule that computes number by number."""

    def rule(operation: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
        lengths = {len(value.items) for value in inputs if value.has_axis}
        if len(lengths - {1}) > 1:
            return None
        length = max(lengths, default=1)
        rows = [value.items if len(value.items) == length else value.items * length for value in inputs]
        items = tuple(operation.call(function, *row) for row in zip(*rows, strict=True))
        return Numbers(items, bool(lengths), dtype or inputs[-1].dtype)

    return rule


def _folded(function: Callable[..., object]) -> _Rule:
    """Make a rule that reduces all numbers to one."""

    def rule(operation: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
        items = inputs[0].items
        if not items:
            return None
        total = items[0]
        for item in items[1:]:
            total = operation.call(function, total, item)
        return Numbers((total,), bool(operation.integer("keepdims", 1)), inputs[0].dtype)

    return rule


def _cast(operation: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    dtype = operation.dtype("to", torch.int64)
    if dtype is torch.bool:
        convert: Callable[..., object] = bool
    else:
        convert = torch.sym_float if dtype.is_floating_point else torch.sym_int
    items = tuple(item if _is(item, dtype) else operation.call(convert, item) for item in inputs[0].items)
    return Numbers(items, inputs[0].has_axis, dtype)


def _is(item: Symbol, dtype: torch.dtype) -> bool:
    if isinstance(item.known, bool):
        return dtype is torch.bool
    return isinstance(item.known, float) == dtype.is_floating_point and dtype is not torch.bool


def _concat(_: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    items = tuple(item for value in inputs for item in value.items)
    return Numbers(items, has_axis=True, dtype=inputs[0].dtype)


def _gather(_: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    source, indices = inputs
    if not indices.is_constant:
        return None
    items = tuple(source.items[int(index)] for index in indices.known)
    return Numbers(items, indices.has_axis, source.dtype)


def _slice(operation: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    if operation.opset < 10:
        starts, ends, steps = operation.integers("starts", []), operation.integers("ends", []), [1]
    else:
        if not all(value.is_constant for value in inputs[1:]):
            return None
        starts, ends = (list(map(int, value.known)) for value in inputs[1:3])
        steps = list(map(int, operation.numbers(4).known)) if operation.has(4) else [1]
    # A negative end before the first element means the first element itself for a negative step.
    items = inputs[0].items[_bound(starts[0], steps[0]) : _bound(ends[0], steps[0]) : steps[0]]
    return Numbers(items, has_axis=True, dtype=inputs[0].dtype)


def _bound(place: int, step: int) -> int | None:
    return None if step < 0 and place < -(2**30) else place


def _with_axis(_: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    return None if inputs[0].has_axis else Numbers(inputs[0].items, has_axis=True, dtype=inputs[0].dtype)


def _without_axis(_: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    return (
        Numbers(inputs[0].items, has_axis=False, dtype=inputs[0].dtype) if len(inputs[0].items) == 1 else None
    )


def _reshape(_: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    if len(inputs) < 2 or not inputs[1].is_constant or len(inputs[1].items) > 1:
        return None
    return Numbers(inputs[0].items, bool(inputs[1].items), inputs[0].dtype)


def _where(operation: Operation, inputs: Sequence[Numbers]) -> Numbers | None:
    result = _each(_choose)(operation, inputs)
    assert result is None or isinstance(result, Numbers)
    return result


def _shape(_: Operation, inputs: Sequence[Numbers]) -> Numbers:
    items = (constant(len(inputs[0].items)),) if inputs[0].has_axis else ()
    return Numbers(items, has_axis=True, dtype=torch.int64)


def _split(operation: Operation, inputs: Sequence[Numbers]) -> list[Value] | None:
    items, parts = inputs[0].items, len(operation.node.output)
    if len(inputs) > 1 or "split" in operation.attributes or len(items) % parts:
        return None
    size = len(items) // parts
    return [
        Numbers(items[first : first + size], has_axis=True, dtype=inputs[0].dtype)
        for first in range(0, len(items), size)
    ]


def _same(_: Operation, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0]


_RULES: Final[Mapping[str, _Rule]] = {
    "Abs": _each(operator.abs),
    "Add": _each(operator.add),
    "And": _each(operator.and_),
    "Cast": _cast,
    "Ceil": _each(math.ceil),
    "Concat": _concat,
    "Div": _each(_quotient),
    "Equal": _each(operator.eq, torch.bool),
    "Floor": _each(math.floor),
    "Gather": _gather,
    "Greater": _each(operator.gt, torch.bool),
    "GreaterOrEqual": _each(operator.ge, torch.bool),
    "Identity": _same,
    "Less": _each(operator.lt, torch.bool),
    "LessOrEqual": _each(operator.le, torch.bool),
    "Max": _each(torch.sym_max),
    "Min": _each(torch.sym_min),
    "Mod": _each(_remainder),
    "Mul": _each(operator.mul),
    "Neg": _each(operator.neg),
    "Not": _each(operator.not_, torch.bool),
    "Or": _each(operator.or_),
    "ReduceMax": _folded(torch.sym_max),
    "ReduceMin": _folded(torch.sym_min),
    "ReduceProd": _folded(operator.mul),
    "ReduceSum": _folded(operator.add),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _without_axis,
    "Sub": _each(operator.sub),
    "Unsqueeze": _with_axis,
    "Where": _where,
}
