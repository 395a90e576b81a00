"""Operators on the elements at one place: arithmetic, comparison, logic, casts."""

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome, same
from flyweight.compressor.importer.values import Symbol, constant

_Build = Callable[[Operation], Outcome]


def unary(function: Callable[..., object]) -> _Build:
    """Make a builder that calls a function of one tensor."""

    def build(operation: Operation) -> Outcome:
        return operation.call(function, operation.tensor(0))

    return build


def binary(function: Callable[..., object]) -> _Build:
    """Make a builder that calls a function of two tensors which broadcast."""

    def build(operation: Operation) -> Outcome:
        first, second = operation.tensor(0), operation.tensor(1)
        if operation.opset < 7:
            second = _aligned(operation, first, second)
        return operation.call(function, first, _literal(second, first))

    return build


def folded(function: Callable[..., object]) -> _Build:
    """Make a builder that combines any number of tensors, two at a time."""

    def build(operation: Operation) -> Outcome:
        tensors = [operation.tensor(index) for index in range(len(operation.inputs))]
        return functools.reduce(lambda total, more: operation.call(function, total, more), tensors)

    return build


def _literal(value: Symbol, beside: Symbol) -> Symbol:
    """Return a constant of one element as a plain number, where that changes neither shape nor type."""
    if not value.is_constant or value.tensor.numel() != 1 or value.rank > beside.rank:
        return value
    number = value.tensor.reshape(()).item()
    fits = value.tensor.dtype is beside.tensor.dtype and value.tensor.dtype is not torch.bool
    return constant(number) if fits and math.isfinite(number) else value


def _aligned(operation: Operation, first: Symbol, second: Symbol) -> Symbol:
    """Follow the attribute `axis` of opsets before 7: the axis of the first that the second starts at."""
    if not operation.integer("broadcast", 0) or "axis" not in operation.attributes:
        return second
    axis = operation.integer("axis", 0) % first.rank
    after = first.rank - axis - second.rank
    return operation.call(torch.reshape, second, [*second.tensor.shape, *([1] * after)])


def _mean(operation: Operation) -> Outcome:
    total = folded(operator.add)(operation)
    assert isinstance(total, Symbol)
    return operation.call(operator.truediv, total, len(operation.inputs))


def _divide(first: Tensor, second: Tensor) -> Tensor:
    """Divide; integers are cut towards zero."""
    if first.is_floating_point():
        return first / second
    return torch.div(first, second, rounding_mode="trunc")


def _modulo(operation: Operation) -> Outcome:
    function = torch.fmod if operation.integer("fmod", 0) else torch.remainder
    return operation.call(function, operation.tensor(0), operation.tensor(1))


def _power(operation: Operation) -> Outcome:
    base, exponent = operation.tensor(0), operation.tensor(1)
    if exponent.is_constant and exponent.tensor.numel() == 1 and exponent.rank <= base.rank:
        number = exponent.tensor.reshape(()).item()
        if base.tensor.is_floating_point():
            return operation.call(torch.pow, base, int(number) if number == int(number) else number)
    dtype = base.tensor.dtype
    return operation.call(_power_as, base, exponent, dtype)


def _power_as(base: Tensor, exponent: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.pow(base, exponent).to(dtype)


def _cast(operation: Operation) -> Outcome:
    x, dtype = operation.tensor(0), operation.dtype("to", torch.float32)
    return x if x.tensor.dtype is dtype else operation.builder.method("to", x, dtype)


def _cast_like(operation: Operation) -> Outcome:
    return operation.builder.method("to", operation.tensor(0), operation.tensor(1).tensor.dtype)


def _clip(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    if operation.opset < 11:
        low = operation.attributes["min"].f if "min" in operation.attributes else None
        high = operation.attributes["max"].f if "max" in operation.attributes else None
        return operation.call(torch.clamp, x, low, high) if (low, high) != (None, None) else x
    bounds = [operation.optional(1), operation.optional(2)]
    if bounds == [None, None]:
        return x
    if all(bound is None or bound.is_constant for bound in bounds):
        low, high = (None if bound is None else bound.tensor.item() for bound in bounds)
        return operation.call(torch.clamp, x, low, high)
    low_bound, high_bound = bounds
    if low_bound is not None:
        x = operation.call(torch.maximum, x, low_bound)
    return x if high_bound is None else operation.call(torch.minimum, x, high_bound)


def _where(operation: Operation) -> Outcome:
    return operation.call(torch.where, *(operation.tensor(index) for index in range(3)))


def _is_infinite(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    both = operation.integer("detect_negative", 1), operation.integer("detect_positive", 1)
    function = {(1, 1): torch.isinf, (1, 0): torch.isneginf, (0, 1): torch.isposinf}.get(both)
    return (
        operation.call(torch.zeros_like, x, dtype=torch.bool)
        if function is None
        else operation.call(function, x)
    )


def _shift(operation: Operation) -> Outcome:
    function = operator.lshift if operation.text("direction", "") == "LEFT" else operator.rshift
    return operation.call(function, operation.tensor(0), operation.tensor(1))


BUILDERS: Final[Mapping[str, _Build]] = {
    "Abs": unary(torch.abs),
    "Acos": unary(torch.acos),
    "Acosh": unary(torch.acosh),
    "Add": binary(operator.add),
    "And": binary(torch.logical_and),
    "Asin": unary(torch.asin),
    "Asinh": unary(torch.asinh),
    "Atan": unary(torch.atan),
    "Atanh": unary(torch.atanh),
    "BitShift": _shift,
    "BitwiseAnd": binary(torch.bitwise_and),
    "BitwiseNot": unary(torch.bitwise_not),
    "BitwiseOr": binary(torch.bitwise_or),
    "BitwiseXor": binary(torch.bitwise_xor),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": unary(torch.ceil),
    "Clip": _clip,
    "Cos": unary(torch.cos),
    "Cosh": unary(torch.cosh),
    "Div": binary(_divide),
    "Equal": binary(operator.eq),
    "Erf": unary(torch.erf),
    "Exp": unary(torch.exp),
    "Floor": unary(torch.floor),
    "Greater": binary(operator.gt),
    "GreaterOrEqual": binary(operator.ge),
    "Identity": same,
    "IsInf": _is_infinite,
    "IsNaN": unary(torch.isnan),
    "Less": binary(operator.lt),
    "LessOrEqual": binary(operator.le),
    "Log": unary(torch.log),
    "Max": folded(torch.maximum),
    "Mean": _mean,
    "Min": folded(torch.minimum),
    "Mod": _modulo,
    "Mul": binary(operator.mul),
    "Neg": unary(operator.neg),
    "Not": unary(torch.logical_not),
    "Or": binary(torch.logical_or),
    "Pow": _power,
    "Reciprocal": unary(torch.reciprocal),
    "Round": unary(torch.round),
    "Sign": unary(torch.sign),
    "Sin": unary(torch.sin),
    "Sinh": unary(torch.sinh),
    "Sqrt": unary(torch.sqrt),
    "Sub": binary(operator.sub),
    "Sum": folded(operator.add),
    "Tan": unary(torch.tan),
    "Where": _where,
    "Xor": binary(torch.logical_xor),
}
