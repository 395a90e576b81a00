"""Whether a graph can be quantized to 8 bits, and where."""

from collections.abc import Collection
from typing import Final

import onnx
from onnx import TensorProto

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
    """Refuse a graph that is quantized already, or that has no weights to quantize.

    Raises:
        PassError: as said.
    """
    operators = {node.op_type for node in model.graph.node}
    if operators & _QUANTIZED:
        raise PassError("The model is quantized already; give the one in floating point.")
    if not operators & WEIGHTED:
        raise PassError("The model's main graph has no Conv, Gemm or MatMul: there is nothing to quantize.")
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    types = {tensor.data_type for tensor in weights}
    if TensorProto.FLOAT16 in types:
        raise PassError("The model's weights are fp16; give the model in fp32.")
    if TensorProto.DOUBLE in types and TensorProto.FLOAT not in types:
        raise PassError("The model's weights are float64; give the model in fp32.")


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
