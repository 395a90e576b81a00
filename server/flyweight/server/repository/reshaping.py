"""Reshape: where callers see another shape than the model's own file has. Pure.

Source: Triton's user guide, "Reshape", and the check in core's model_config_utils.cc: free lengths stand in
the same order in both shapes, and between two of them both hold the same number of elements.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelTensorReshape
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.signature import FREE


class Declared(Protocol):
    """What an input and an output of a configuration have in common."""

    @property
    def name(self) -> str:
        """The tensor's name."""
        ...

    @property
    def dims(self) -> Sequence[int]:
        """Its lengths as callers see them, without the batch axis."""
        ...

    @property
    def reshape(self) -> ModelTensorReshape:
        """Its lengths in the model's own file."""
        ...


@dataclass(frozen=True, slots=True)
class Reshape:
    """Two shapes of one tensor, both without the batch axis: `outer` is the callers', `inner` the model's."""

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    batch_axes: int

    def inward(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the model's shape of an array that has the callers' `shape`, batch axis included."""
        return self._fill(shape, self.outer, self.inner)

    def outward(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the callers' shape of an array that has the model's `shape`, batch axis included."""
        return self._fill(shape, self.inner, self.outer)

    def _fill(self, shape: Sequence[int], old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
        batch, lengths = tuple(shape[: self.batch_axes]), shape[self.batch_axes :]
        free = (length for length, declared in zip(lengths, old, strict=True) if declared == FREE)
        return batch + tuple(next(free) if length == FREE else length for length in new)


@dataclass(frozen=True, slots=True)
class Reshapes:
    """The tensors of one model that are reshaped, by name."""

    inputs: Mapping[str, Reshape] = field(default_factory=lambda: MappingProxyType({}))
    outputs: Mapping[str, Reshape] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def reshapes_of(config: ModelConfig, model: str) -> Reshapes:
    """Return what a configuration reshapes.

    Raises:
        LoadFailed: two shapes of a tensor do not hold the same elements.
    """
    what = f"The config.pbtxt of {model}"
    batch_axes = 1 if config.max_batch_size else 0
    inputs = [tensor for tensor in config.input if tensor.HasField("reshape")]
    outputs = [tensor for tensor in config.output if tensor.HasField("reshape")]
    return Reshapes(
        inputs=MappingProxyType(dict(_pairs(inputs, batch_axes, what))),
        outputs=MappingProxyType(dict(_pairs(outputs, batch_axes, what))),
    )


def _pairs(tensors: Iterable[Declared], batch_axes: int, what: str) -> Iterator[tuple[str, Reshape]]:
    for tensor in tensors:
        outer, inner = tuple(tensor.dims), tuple(tensor.reshape.shape)
        for length in (*outer, *inner):
            if length < 1 and length != FREE:
                raise LoadFailed(
                    f"{what} reshapes {tensor.name!r} with a length of {length}; "
                    "lengths are 1 or more, or -1."
                )
        if _chunks(outer) != _chunks(inner):
            raise LoadFailed(
                f"{what} reshapes {tensor.name!r} from {list(outer)} to {list(inner)}, which do not hold the "
                "same elements; correct one of them."
            )
        yield tensor.name, Reshape(outer, inner, batch_axes)


def _chunks(shape: Sequence[int]) -> list[int]:
    """Return the number of elements between one free length and the next."""
    chunks = [1]
    for length in shape:
        if length == FREE:
            chunks.append(1)
        else:
            chunks[-1] = math.prod((chunks[-1], length))
    return chunks
