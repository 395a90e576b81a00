"""Taking out of an ONNX graph what says nothing to whoever runs it."""

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.onnx_model import all_graphs, all_tensors

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


def tidy(model: onnx.ModelProto) -> None:
    """Remove descriptions, metadata and inferred shapes, in place, and make one zero of both.

    Exporters write down which line of Python a node came from, and the shape of every intermediate value,
    which onnxruntime infers again. A weight of -0.0, as a mask times a negative weight leaves it, adds and
    multiplies to the same as 0.0 and is another symbol to code.
    """
    for message in (model, *model.functions):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    for graph in all_graphs(model.graph):
        for field in ("doc_string", "metadata_props", "value_info"):
            graph.ClearField(field)
        for node in graph.node:
            _strip(node)
        for value in (*graph.input, *graph.output):
            _strip(value)
    for function in model.functions:
        function.ClearField("value_info")
        for node in function.node:
            _strip(node)
    for tensor in all_tensors(model):
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS and len(tensor.dims) >= 2:
            _one_zero(tensor)


def _strip(part: onnx.NodeProto | onnx.ValueInfoProto) -> None:
    part.ClearField("doc_string")
    part.ClearField("metadata_props")


def _one_zero(tensor: onnx.TensorProto) -> None:
    values = numpy_helper.to_array(tensor)
    negative = (values == 0) & np.signbit(values)
    if negative.any():
        tensor.CopyFrom(
            numpy_helper.from_array(np.where(negative, values.dtype.type(0), values), tensor.name)
        )
