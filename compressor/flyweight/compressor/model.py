"""A model on its way through a recipe: an ONNX file, a coded one, or a torch module with an example input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.passes.base import Form
from flyweight.protos.variant.names import CODED_SUFFIX

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Model:
    """Any form of a model; exactly one of `path` and `module` is set.

    Attributes:
        path: model.onnx, its external data beside it, or a coded file (flyweight.protos.coded) by its suffix.
            A pass reads it and writes another; it never edits it.
        module: a torch module in evaluation mode. A pass copies it before it changes it.
        example: one input for each argument of `module`, by name, in the order of its forward(), batch axis
            first (length 1). Needed to trace and export; empty for ONNX models.
        output_names: the names of the module's outputs in the exported graph.
    """

    path: Path | None = None
    module: "torch.nn.Module | None" = None
    example: Mapping[str, Array] = field(default_factory=dict)
    output_names: tuple[str, ...] = ("output",)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.module is None):
            raise ValueError("A model is either a path to an ONNX file or a torch module.")

    @property
    def form(self) -> Form:
        """Which of the three it is."""
        if self.path is None:
            return Form.TORCH
        return Form.CODED if self.path.suffix == CODED_SUFFIX else Form.ONNX

    def onnx_path(self) -> Path:
        """Return the path of an ONNX model; a pass that needs ONNX calls this."""
        assert self.path is not None, "the base class of passes checked the form"
        return self.path

    def torch_module(self) -> "torch.nn.Module":
        """Return the module of a torch model; a pass that needs torch calls this."""
        assert self.module is not None, "the base class of passes checked the form"
        return self.module


def example_of(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the first row of each input, with its batch axis of length 1."""
    return {name: np.ascontiguousarray(array[:1]) for name, array in inputs.items()}
