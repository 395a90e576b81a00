"""Layers of a graph that multiply with a constant: y = W * x + b, one row of W for each output channel."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from flyweight.compressor.onnx_model import attribute

Array = NDArray[Any]

_PRODUCTS: Final = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or product whose weight is its own: no other node reads it.

    Attributes:
        node: in the graph.
        weight: the weight's initializer.
        bias: the initializer of its bias, if it has one with a number for each output channel.
        axis: of the weight that counts output channels.
    """

    node: onnx.NodeProto
    weight: onnx.TensorProto
    axis: int
    bias: onnx.TensorProto | None = None

    @property
    def name(self) -> str:
        """The tensor it gives, which is unique where the names of nodes may not be."""
        return self.node.output[0]

    @property
    def source(self) -> str:
        """The activation it reads."""
        return self.node.input[0]

    @property
    def channels(self) -> int:
        """How many channels it gives."""
        return int(self.weight.dims[self.axis])

    @property
    def groups(self) -> int:
        """In how many groups of channels a convolution works."""
        return attribute(self.node, "group", 1)

    def has_own_bias(self, graph: onnx.GraphProto) -> bool:
        """Tell whether all that the layer adds is a bias of its own, or nothing."""
        if len(self.node.input) < 3 or not self.node.input[2]:
            return True
        name = self.node.input[2]
        alone = sum(list(node.input).count(name) for node in graph.node) == 1
        return alone and self.bias is not None and attribute(self.node, "beta", 1.0) == 1

    def rows(self) -> Array:
        """Return the weight as (output channels, values of each)."""
        return np.moveaxis(numpy_helper.to_array(self.weight), self.axis, 0).reshape(self.channels, -1)

    def set_rows(self, rows: Array) -> None:
        """Write the weight, given as `rows` gives it."""
        shape = [length for place, length in enumerate(self.weight.dims) if place != self.axis]
        values = np.moveaxis(rows.reshape(self.channels, *shape), 0, self.axis)
        name = self.weight.name
        self.weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))


def layers_of(graph: onnx.GraphProto, exclude: Collection[str] = ()) -> list[Layer]:
    """Return the layers of the main graph that are not excluded by name or by type, in order.

    Left out are weights that several nodes read, that are not fp32, or that are no matrices or kernels.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    found = []
    for node in graph.node:
        if node.op_type not in _PRODUCTS or {node.name, node.op_type} & set(exclude):
            continue
        weight = stored.get(node.input[1])
        if weight is None or readers[weight.name] > 1 or node.input[0] in stored:
            continue
        axis = channel_axis(node)
        if len(weight.dims) > axis and (node.op_type == "Conv" or len(weight.dims) == 2):
            bias = stored.get(node.input[2]) if len(node.input) > 2 else None
            fits = bias is not None and list(bias.dims) == [weight.dims[axis]]
            found.append(Layer(node, weight, axis, bias if fits else None))
    return found


def channel_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a layer's weight that counts output channels."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1


def scales_of(rows: Array, largest: int, *, per_channel: bool) -> Array:
    """Return the scale of each row, (rows, 1): max|w| / largest, as onnxruntime's quantizer has it.

    A row as good as zero has scale 1: below the smallest normal float32 a scale loses everything.
    """
    peaks = np.abs(rows).max(axis=1, keepdims=True)
    if not per_channel:
        peaks = np.full_like(peaks, peaks.max())
    return np.where(peaks > largest * np.finfo(np.float32).tiny, peaks / largest, 1).astype(np.float32)


def rounded(rows: Array, largest: int, *, per_channel: bool) -> Array:
    """Return what 8 bits make of rows of weights: s * round(w / s)."""
    scales = scales_of(rows, largest, per_channel=per_channel)
    return (np.clip(np.rint(rows / scales), -largest, largest) * scales).astype(np.float32)


def byte_grid(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of unsigned bytes over a range, widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))
