"""Counting the weights that are zero, whatever number stands for zero in a quantized or shared tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, numpy_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import all_graphs

Array = NDArray[Any]

_FLOATS: Final = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)
_INTEGERS: Final = frozenset(
    {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
)
_SCALES: Final = ("_scale", "_zero_point")
_RESHAPES: Final = frozenset({"Cast", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity"})


def count_zeros(model: onnx.ModelProto, folder: Path) -> int:
    """Return how many weights are zero, in the main graph and its subgraphs.

    Floats count as they are. Integers that a DequantizeLinear widens are zero where they equal its zero
    point; indices that a Gather looks up in a codebook, where the codebook's entry is 0. Other integers count
    as they are. Tensors in external files are read one after the other.

    Args:
        model: the graph, its external data not loaded.
        folder: where the external data lie.

    Raises:
        ModelError: external data cannot be read.
    """
    return sum(_zeros_of_graph(graph, folder) for graph in all_graphs(model.graph))


def _zeros_of_graph(graph: onnx.GraphProto, folder: Path) -> int:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensors[node.output[0]] = attribute.t
    uses = _first_uses(graph, tensors)
    scales = {
        name
        for node in graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
        for name in node.input[1:]
    }
    return sum(
        _zeros_of_tensor(name, tensor, uses.get(name), tensors, folder)
        for name, tensor in tensors.items()
        if tensor.dims
        and name not in scales
        and not name.endswith(_SCALES)
        and tensor.data_type in _FLOATS | _INTEGERS
    )


def _first_uses(graph: onnx.GraphProto, tensors: Mapping[str, object]) -> dict[str, onnx.NodeProto]:
    """Return the first node that computes with each stored tensor, casts and reshapes aside."""
    origin = {name: name for name in tensors}
    uses: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type in _RESHAPES and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
            continue
        for name in node.input:
            if name in origin:
                uses.setdefault(origin[name], node)
    return uses


def _zeros_of_tensor(
    name: str,
    tensor: onnx.TensorProto,
    use: onnx.NodeProto | None,
    tensors: Mapping[str, onnx.TensorProto],
    folder: Path,
) -> int:
    values = _array(tensor, folder)
    if tensor.data_type in _FLOATS or use is None:
        return int(values.size - np.count_nonzero(values))
    values = values.astype(np.int32)
    if use.op_type == "DequantizeLinear" and len(use.input) > 2 and use.input[2] in tensors:
        points = _array(tensors[use.input[2]], folder).astype(np.int32)
        return int(np.sum(values == _aligned(points, values, use)))
    if use.op_type == "Gather" and use.input[0] in tensors and use.input[0] != name:
        book = _array(tensors[use.input[0]], folder)
        if book.ndim == 1:
            return int(np.sum(book[values] == 0))
    return int(values.size - np.count_nonzero(values))


def _aligned(points: Array, values: Array, use: onnx.NodeProto) -> Array:
    """Return zero points in a shape that broadcasts against the values: one, or one for each channel."""
    if points.size == 1:
        return points.reshape(())
    axis = next((attribute.i for attribute in use.attribute if attribute.name == "axis"), 1)
    if points.ndim == 1 and points.size == values.shape[axis]:
        return points.reshape([-1 if place == axis % values.ndim else 1 for place in range(values.ndim)])
    # Zero points of blocks: the same for a stretch along one axis.
    return np.asarray(
        np.broadcast_to(points, values.shape)
        if points.shape == values.shape
        else np.repeat(points, -(-values.shape[axis] // points.shape[axis]), axis)[
            tuple(slice(length) for length in values.shape)
        ]
    )


def _array(tensor: onnx.TensorProto, folder: Path) -> Array:
    def read() -> Array:
        loaded = tensor
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            loaded = onnx.TensorProto()
            loaded.CopyFrom(tensor)
            external_data_helper.load_external_data_for_tensor(loaded, str(folder))
        return np.asarray(numpy_helper.to_array(loaded))

    return run_foreign(
        read, lambda reason: ModelError(f"Its tensor {tensor.name!r} cannot be read ({reason}).")
    )
