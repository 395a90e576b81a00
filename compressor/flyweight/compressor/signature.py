"""What a model takes and gives: names, types and shapes, in the words of the Open Inference Protocol."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flyweight.compressor.errors import ModelError

# onnxruntime's word: (the protocol's word, numpy's type). What is missing here numpy cannot hold.
_TYPES: Final[Mapping[str, tuple[str, np.dtype[Any]]]] = {
    "tensor(bool)": ("BOOL", np.dtype(np.bool_)),
    "tensor(uint8)": ("UINT8", np.dtype(np.uint8)),
    "tensor(uint16)": ("UINT16", np.dtype(np.uint16)),
    "tensor(uint32)": ("UINT32", np.dtype(np.uint32)),
    "tensor(uint64)": ("UINT64", np.dtype(np.uint64)),
    "tensor(int8)": ("INT8", np.dtype(np.int8)),
    "tensor(int16)": ("INT16", np.dtype(np.int16)),
    "tensor(int32)": ("INT32", np.dtype(np.int32)),
    "tensor(int64)": ("INT64", np.dtype(np.int64)),
    "tensor(float16)": ("FP16", np.dtype(np.float16)),
    "tensor(float)": ("FP32", np.dtype(np.float32)),
    "tensor(double)": ("FP64", np.dtype(np.float64)),
    "tensor(string)": ("BYTES", np.dtype(np.object_)),
}

_LISTED: Final = 10


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: as in the graph.
        datatype: in the protocol's words, for example FP32.
        dtype: numpy's type for it; object for strings.
        shape: None where a length is free.
    """

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs, in the graph's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec:
        """Return the input called `name`; a KeyError if there is none."""
        return {spec.name: spec for spec in self.inputs}[name]

    def difference(self, other: "Signature") -> str | None:
        """Return in words how `other` differs in names, types or ranks; None when callers cannot tell.

        Free lengths may be written differently, and an output's lengths may be known in one file only.
        """
        for ours, theirs, what in (
            (self.inputs, other.inputs, "input"),
            (self.outputs, other.outputs, "output"),
        ):
            if [spec.name for spec in ours] != [spec.name for spec in theirs]:
                return f"its {what}s are {_names(theirs)} instead of {_names(ours)}"
            for mine, yours in zip(ours, theirs, strict=True):
                if mine.datatype != yours.datatype:
                    return f"{what} {mine.name!r} is {yours.datatype} instead of {mine.datatype}"
                if what == "input" and mine.shape != yours.shape:
                    return f"input {mine.name!r} has shape {yours.shape} instead of {mine.shape}"
        return None


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return some_names([spec.name for spec in specs])


def some_names(names: Collection[str]) -> str:
    """Return names as a sentence lists them, cut short when there are more than anybody reads."""
    shown = ", ".join(list(names)[:_LISTED]) or "none"
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def tensor_spec(name: str, onnxruntime_type: str, shape: list[int | str | None]) -> TensorSpec:
    """Translate one of onnxruntime's input or output descriptions.

    Raises:
        ModelError: it is not a tensor, or one of a type that cannot be fed or compared.
    """
    if onnxruntime_type not in _TYPES:
        raise ModelError(
            f"The model's tensor {name!r} is of type {onnxruntime_type}, which cannot be served; "
            "export the model with plain tensors as inputs and outputs."
        )
    datatype, dtype = _TYPES[onnxruntime_type]
    lengths = tuple(length if isinstance(length, int) and length >= 0 else None for length in shape)
    return TensorSpec(name, datatype, dtype, lengths)
