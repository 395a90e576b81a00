"""The weights of an ONNX graph that can become zeros."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import all_graphs, attribute

_INPUT_AXES: Final = {"Conv": 1, "ConvTranspose": 0, "Gemm": 0, "MatMul": -2, "LSTM": 2, "GRU": 2, "RNN": 2}
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
_FLOATS: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


@dataclass(frozen=True, slots=True)
class GraphWeight:
    """A stored matrix or bank of filters.

    Attributes:
        name: of the initializer, or of the output of the Constant node that holds it.
        input_axis: the axis along which products add up.
        tensor: where it is stored; writing into it changes the model.
    """

    name: str
    input_axis: int
    tensor: onnx.TensorProto

    def values(self) -> Array:
        """Return a copy of the weight's values."""
        return np.array(numpy_helper.to_array(self.tensor))

    def write(self, values: Array) -> None:
        """Put other values of the same shape and type in its place."""
        name = self.tensor.name
        self.tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def graph_weights(model: onnx.ModelProto) -> list[GraphWeight]:
    """Return the weights of convolutions, products and recurrent layers, in the bodies of If and Loop too.

    A weight that several nodes read counts once.
    """
    found: dict[int, GraphWeight] = {}
    stored: dict[str, onnx.TensorProto] = {}
    for graph in all_graphs(model.graph):
        # Bodies see the tensors around them, and ONNX lets no name mean two things.
        stored.update(_stored(graph))
        for node in graph.node:
            for name, axis in _weights_of(node, stored):
                found.setdefault(id(stored[name]), GraphWeight(name, axis, stored[name]))
    return list(found.values())


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for found in node.attribute:
                if found.name == "value":
                    tensors[node.output[0]] = found.t
    return tensors


def _weights_of(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> Iterator[tuple[str, int]]:
    axis = _INPUT_AXES.get(node.op_type)
    if axis is None or node.domain not in {"", "ai.onnx"}:
        return
    names = list(node.input[1:3]) if node.op_type in _RECURRENT else list(node.input[1:2])
    for name in names:
        tensor = stored.get(name)
        if tensor is None or tensor.data_type not in _FLOATS or len(tensor.dims) < 2:
            continue
        transposed = attribute(node, "transB", 0)
        yield name, 1 if transposed else axis % len(tensor.dims)
