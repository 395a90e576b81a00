"""What a name of the graph stands for while it is imported: a tensor, or numbers that make up a shape.

Shapes are kept as Python numbers. Computed as tensors they would be frozen when the module is traced again;
as numbers torch.export sees `x.size(0)` and keeps it symbolic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import torch
from torch import Tensor, fx

Number: TypeAlias = int | float | bool
Kind = TypeVar("Kind")

LONGEST_SHAPE: Final = 64
"""Constants with more elements are data, not shapes."""


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """A tensor or one number of the graph.

    Attributes:
        node: that computes it in the module; None for a constant.
        known: its value on the sample the import runs on; for a constant, the constant.
        origin: the name of the initializer or Constant node a constant is, unchanged; empty when it was
            computed.
    """

    node: fx.Node | None
    known: object
    origin: str = ""

    @property
    def is_constant(self) -> bool:
        """Whether it does not depend on the inputs."""
        return self.node is None

    @property
    def tensor(self) -> Tensor:
        """The known value of a tensor."""
        assert isinstance(self.known, Tensor), f"a tensor is wanted and {type(self.known).__name__} given"
        return self.known

    @property
    def number(self) -> Number:
        """The known value of a number."""
        assert isinstance(self.known, int | float), (
            f"a number is wanted and {type(self.known).__name__} given"
        )
        return self.known

    @property
    def rank(self) -> int:
        """How many axes a tensor has."""
        return self.tensor.ndim


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A tensor of at most one axis, as separate numbers.

    Attributes:
        items: the numbers; one when it has no axis.
        has_axis: whether it has one axis or none.
        dtype: of the tensor it stands for.
    """

    items: tuple[Symbol, ...]
    has_axis: bool
    dtype: torch.dtype

    @property
    def is_constant(self) -> bool:
        """Whether no number depends on the inputs."""
        return all(item.is_constant for item in self.items)

    @property
    def known(self) -> list[Number]:
        """The numbers on the sample."""
        return [item.number for item in self.items]


Value: TypeAlias = Symbol | Numbers


def constant(value: object) -> Symbol:
    """Return a constant."""
    return Symbol(None, value)


def as_tensor(numbers: Numbers) -> Tensor:
    """Return constant numbers as the tensor they stand for."""
    known = numbers.known if numbers.has_axis else numbers.known[0]
    return torch.tensor(known, dtype=numbers.dtype)


def as_numbers(value: Value) -> Numbers | None:
    """Return a constant tensor of at most one short axis as numbers, and None for any other tensor."""
    if isinstance(value, Numbers):
        return value
    if not value.is_constant or value.rank > 1 or value.tensor.numel() > LONGEST_SHAPE:
        return None
    listed = value.tensor.reshape(-1).tolist()
    return Numbers(tuple(map(constant, listed)), value.rank == 1, value.tensor.dtype)


def replaced(argument: object, replace: Callable[[Symbol], object]) -> object:
    """Return an argument of a call with each symbol in it, however deep in lists, replaced."""
    if isinstance(argument, Symbol):
        return replace(argument)
    if isinstance(argument, list):
        return [replaced(item, replace) for item in argument]
    if isinstance(argument, tuple):
        return tuple(replaced(item, replace) for item in argument)
    return argument


def symbols_in(argument: object) -> list[Symbol]:
    """Return the symbols in an argument of a call, however deep in lists."""
    found: list[Symbol] = []

    def note(symbol: Symbol) -> None:
        found.append(symbol)

    replaced(argument, note)
    return found
