"""Whether a graph can be quantized to 8 bits, and where."""

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from flyweight.compressor.errors import PassError

# What makes quantizing worthwhile; without one of these there are no weights to store in bytes.
WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED: Final = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "MatMulInteger",
        "ConvInteger",
        "DynamicQuantizeLinear",
        "MatMulNBits",
        "QGemm",
    }
)
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


def check_can_quantize(model: onnx.ModelProto) -> None:
    """Refuse a graph that is quantized already, or that has no finite weights to quantize.

    Raises:
        PassError: as said.
    """
    check_in_floating_point(model)
    if not {node.op_type for node in model.graph.node} & WEIGHTED:
        raise PassError("The model's main graph has no Conv, Gemm or MatMul: there is nothing to quantize.")
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    types = {tensor.data_type for tensor in weights}
    if TensorProto.FLOAT16 in types:
        raise PassError("The model's weights are fp16; give the model in fp32.")
    if TensorProto.DOUBLE in types and TensorProto.FLOAT not in types:
        raise PassError("The model's weights are float64; give the model in fp32.")
    check_finite_weights(model)


def check_in_floating_point(model: onnx.ModelProto) -> None:
    """Refuse a graph that is quantized already.

    Raises:
        PassError: it is.
    """
    if {node.op_type for node in model.graph.node} & _QUANTIZED:
        raise PassError("The model is quantized already; give the one in floating point.")


def check_finite_weights(model: onnx.ModelProto) -> None:
    """Refuse weights that are no numbers: a scale made of them makes the whole layer not-a-number.

    Raises:
        PassError: an fp32 weight of a weighted layer holds infinite or not-a-number values.
    """
    weighted = {name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name not in weighted or tensor.data_type != TensorProto.FLOAT:
            continue
        broken = int((~np.isfinite(numpy_helper.to_array(tensor))).sum())
        if broken:
            raise PassError(
                f"The weight {tensor.name!r} holds {broken} values that are not finite; repair the model."
            )


def activations(model: onnx.ModelProto, operators: Collection[str]) -> list[str]:
    """Return the float tensors that flow in or out of the operators to quantize, in the graph's order."""
    graph = model.graph
    values = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    stored = {tensor.name for tensor in graph.initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type not in operators:
            continue
        for name in (*node.input, *node.output):
            value = values.get(name)
            if value is not None and name not in stored and value.type.tensor_type.elem_type in _FLOATS:
                found[name] = None
    return list(found)


def weighted_nodes(model: onnx.ModelProto, exclude: Collection[str] = ()) -> list[onnx.NodeProto]:
    """Return the layers with weights that are not excluded, by name or by type, in the graph's order."""
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and not {node.name, node.op_type} & set(exclude)
    ]
