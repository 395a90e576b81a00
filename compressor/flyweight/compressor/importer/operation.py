"""One node of the graph, as the builders of operators see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import onnx
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import ModelError
from flyweight.compressor.importer.builder import Builder
from flyweight.compressor.importer.tensors import dtype_of, read_tensor
from flyweight.compressor.importer.values import Numbers, Symbol, Value, as_numbers

Outcome: TypeAlias = Value | Sequence[Value | None]
"""What a builder returns: the node's only output, or all of them in order, None for one it cannot give."""


class Walk(Protocol):
    """What a builder may ask about the rest of the graph."""

    def sole_consumer(self, node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        """Return the only node that reads a node's first output, if there is one and it is of this type."""

    def lookup(self, name: str) -> Value | None:
        """Return the value of a name, if it is known already."""

    def absorb(self, node: onnx.NodeProto, consumer: onnx.NodeProto) -> None:
        """Note that what `node` returns is what `consumer` would."""

    def fixed_lengths(self, name: str) -> Sequence[int | None] | None:
        """Return the lengths that the graph fixes, None for free ones; None for unknown axes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A node with its inputs' values.

    Attributes:
        node: as in the graph.
        inputs: by position; None where an optional input is left out.
        opset: of the node's domain.
        builder: takes the calls.
        walk: knows the rest of the graph.
    """

    node: onnx.NodeProto
    inputs: Sequence[Value | None]
    opset: int
    builder: Builder
    walk: Walk
    attributes: Mapping[str, onnx.AttributeProto] = field(init=False)

    def __post_init__(self) -> None:
        """Index the attributes."""
        object.__setattr__(self, "attributes", {entry.name: entry for entry in self.node.attribute})

    @property
    def name(self) -> str:
        """What the node is called, or its first output."""
        return self.node.name or self.node.output[0]

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """Return an input that must be given, as it was kept.

        Raises:
            ModelError: it is not.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.refusal(f"lacks its input {index}")
        return found

    def tensor(self, index: int) -> Symbol:
        """Return an input that must be given, as a tensor."""
        return self.builder.tensor(self.value(index))

    def optional(self, index: int) -> Symbol | None:
        """Return an optional input as a tensor, or None."""
        return self.tensor(index) if self.has(index) else None

    def constant(self, index: int) -> Tensor:
        """Return an input that must be a constant.

        Raises:
            ModelError: it depends on the model's inputs.
        """
        value = self.value(index)
        if not value.is_constant:
            raise self.refusal(f"computes its input {index}, which the importer only knows as a constant")
        return self.tensor(index).tensor

    def numbers(self, index: int) -> Numbers:
        """Return an input that describes a shape, as numbers; those of a computed tensor are read from it."""
        value = self.value(index)
        found = as_numbers(value)
        if found is not None:
            return found
        tensor = self.tensor(index)
        flat = [tensor] if tensor.rank == 0 else self._parts(tensor)
        read = tuple(self.builder.method("item", part) for part in flat)
        return Numbers(read, tensor.rank == 1, tensor.tensor.dtype)

    def number(self, index: int) -> Symbol:
        """Return an input that is one number."""
        return self.numbers(index).items[0]

    def axes(self, index: int, rank: int) -> list[int] | None:
        """Return axes given as an attribute in old opsets and as an input since, none of them negative."""
        found: list[int] | None = None
        if self.has(index):
            found = [int(axis) for axis in self.constant(index).reshape(-1).tolist()]
        elif "axes" in self.attributes:
            found = self.integers("axes", [])
        return None if found is None else [axis % max(rank, 1) for axis in found]

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        return int(self.attributes[name].i) if name in self.attributes else default

    def real(self, name: str, default: float) -> float:
        """Return an attribute that is a floating-point number."""
        return float(self.attributes[name].f) if name in self.attributes else default

    def text(self, name: str, default: str) -> str:
        """Return an attribute that is a string."""
        return self.attributes[name].s.decode() if name in self.attributes else default

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Return an attribute that is a list of integers."""
        return list(self.attributes[name].ints) if name in self.attributes else list(default)

    def dtype(self, name: str, default: torch.dtype) -> torch.dtype:
        """Return an attribute that is one of ONNX's element types."""
        return dtype_of(self.attributes[name].i) if name in self.attributes else default

    def tensor_attribute(self, name: str, default: Tensor) -> Tensor:
        """Return an attribute that is a tensor."""
        return read_tensor(self.attributes[name].t) if name in self.attributes else default

    def fixed_lengths(self, index: int) -> Sequence[int | None] | None:
        """Return what the graph fixes of an input's shape; see Walk.fixed_lengths."""
        return self.walk.fixed_lengths(self.node.input[index])

    def call(self, function: Callable[..., object], *arguments: object, **options: object) -> Symbol:
        """Call a function; see Builder.call."""
        return self.builder.call(function, *arguments, **options)

    def layer(self, module: nn.Module, parameters: Sequence[Symbol | None], *arguments: Symbol) -> Symbol:
        """Call a layer whose parameters are these constants; see Builder.layer."""
        names = [symbol.origin for symbol in parameters if symbol is not None]
        return self.builder.layer(module, names, self.name, *arguments)

    def refusal(self, what: str) -> ModelError:
        """Return the error for a node the importer cannot take: what it does, after its name."""
        return ModelError(
            f"The node {self.name!r} ({self.node.op_type}) {what}; "
            "the model cannot be turned into a torch module."
        )

    def _parts(self, tensor: Symbol) -> list[Symbol]:
        return [self.call(torch.select, tensor, 0, index) for index in range(tensor.tensor.shape[0])]


def same(operation: Operation) -> Outcome:
    """Return the first input: for operators that change nothing when a model answers."""
    return operation.value(0)
