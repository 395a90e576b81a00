"""Recurrent operators: LSTM, GRU and RNN, in one direction or both."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.recurrence import (
    ACTIVATIONS,
    USUAL,
    Gates,
    LoopedRecurrence,
    Recurrence,
    Settings,
)
from flyweight.compressor.importer.values import Symbol, Value

_BACKWARDS: Final = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def _recurrent(operation: Operation) -> Outcome:
    settings = _settings(operation)
    gates = _gates(operation, len(settings.backwards))
    x, lengths = operation.tensor(0), _lengths(operation, settings)
    hidden = operation.optional(5)
    cell = operation.optional(6) if settings.kind == "LSTM" else None
    weights = [operation.tensor(1), operation.tensor(2)]
    peepholes = any(one.peephole is not None for one in gates)
    if settings.as_torch and lengths is None and not peepholes:
        layer: Recurrence | LoopedRecurrence = Recurrence(settings, gates)
        arguments: list[Symbol | None] = [x, hidden, cell]
    else:
        layer = LoopedRecurrence(settings, gates)
        arguments = [x, lengths, hidden, cell]
    several = operation.builder.layer(
        layer, [weight.origin for weight in weights], operation.name, *arguments
    )
    outputs: list[Value | None] = []
    for place, name in enumerate(operation.node.output):
        outputs.append(operation.builder.part(several, place) if name else None)
    return outputs


def _settings(operation: Operation) -> Settings:
    kind, direction = operation.node.op_type, operation.text("direction", "forward")
    backwards = _BACKWARDS[direction]
    given = (
        [entry.decode().lower() for entry in operation.attributes["activations"].strings]
        if ("activations" in operation.attributes)
        else list(USUAL[kind]) * len(backwards)
    )
    unknown = [name for name in given if name not in ACTIVATIONS]
    if unknown or operation.attributes.keys() & {"activation_alpha", "activation_beta"}:
        raise operation.refusal(
            f"uses activations the importer does not know ({', '.join(unknown) or 'scaled'})"
        )
    each = len(USUAL[kind])
    return Settings(
        kind=kind,
        backwards=backwards,
        activations=tuple(tuple(given[first : first + each]) for first in range(0, len(given), each)),
        clip=operation.real("clip", 0.0),
        couples=bool(operation.integer("input_forget", 0)),
        resets_after=bool(operation.integer("linear_before_reset", 0)),
        batch_first=bool(operation.integer("layout", 0)),
    )


def _gates(operation: Operation, directions: int) -> list[Gates]:
    inputs, hidden = operation.constant(1), operation.constant(2)
    bias = operation.constant(3) if operation.has(3) else None
    holes = operation.constant(7) if operation.node.op_type == "LSTM" and operation.has(7) else None
    return [
        Gates(inputs[place], hidden[place], _of(bias, place), _of(holes, place))
        for place in range(directions)
    ]


def _of(values: Tensor | None, place: int) -> Tensor | None:
    return None if values is None else values[place]


def _lengths(operation: Operation, settings: Settings) -> Symbol | None:
    """Return the steps of each row, or None where all rows have all steps."""
    lengths = operation.optional(4)
    if lengths is None:
        return None
    steps = operation.tensor(0).tensor.shape[1 if settings.batch_first else 0]
    if lengths.is_constant and bool(torch.all(lengths.tensor == steps)):
        return None
    return lengths


_Build = Callable[[Operation], Outcome]
BUILDERS: Final[Mapping[str, _Build]] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
