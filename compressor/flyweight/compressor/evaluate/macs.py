"""Counting multiply-accumulate operations from the shapes in a graph."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import onnx
from onnx import shape_inference

from flyweight.compressor.errors import CompressorError, ModelError
from flyweight.compressor.feeding import Layout
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import all_graphs

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def count_macs(model: onnx.ModelProto, layout: Layout) -> int | None:
    """Return the multiply-accumulate operations for one sample; None where the graph does not tell."""
    return explain_macs(model, layout)[0]


def explain_macs(model: onnx.ModelProto, layout: Layout) -> tuple[int | None, str]:
    """Return the multiply-accumulate operations for one sample, or None and why they are not known.

    Counts convolutions, matrix products and recurrent cells of the main graph, in fp32 or int8; additions and
    activations do not count.

    Args:
        model: the graph; its weights need not be loaded.
        layout: which inputs have a batch axis, and how many rows a run takes.
    """
    rows = layout.rows or 1
    for node in _nodes_of_bodies(model.graph):
        if node.op_type in _COUNTERS:
            return (
                None,
                f"It multiplies ({node.op_type}) inside an If or a Loop, as often as the data decide.",
            )
    shapes = _shapes(model, layout, rows)
    total = 0
    for node in model.graph.node:
        if node.op_type in _UNCOUNTED:
            return None, f"It has a {node.op_type}, whose multiplications are not counted."
        count = _COUNTERS.get(node.op_type)
        if count is None:
            continue
        try:
            total += count(node, shapes)
        except (KeyError, IndexError, ValueError):
            return None, f"The shapes around {node.op_type} {node.name or node.output[0]!r} are not known."
    return total // rows, ""


def _nodes_of_bodies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of all subgraphs."""
    bodies = all_graphs(graph)
    next(bodies)
    for body in bodies:
        yield from body.node


def _shapes(model: onnx.ModelProto, layout: Layout, rows: int) -> Shapes:
    """Return the shapes of all tensors for a run of `rows` rows, as far as they can be inferred."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name in layout.batched and dimensions:
            dimensions[0].Clear()
            dimensions[0].dim_value = rows
    # What was inferred for a free batch axis would win over what is inferred now.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        fixed = run_foreign(lambda: shape_inference.infer_shapes(fixed, data_prop=True), ModelError)
    except CompressorError:
        return {}
    graph = fixed.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            shapes[value.name] = tuple(d.dim_value for d in dimensions)
    return shapes


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Output elements times the weights behind one of them: input channels of a group times the kernel."""
    weight = shapes[node.input[_weight_place(node)]]
    return math.prod(shapes[node.output[0]]) * math.prod(weight[1:])


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Input elements times the weights each is spread by: output channels of a group times the kernel."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Output elements times the length of the common axis."""
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Steps times rows times the weights of the input (W) and of the state (R), in all directions."""
    steps, rows, _ = shapes[node.input[0]]
    return steps * rows * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))


def _weight_place(node: onnx.NodeProto) -> int:
    return 3 if node.op_type == "QLinearConv" else 1


_COUNTERS: Final[Mapping[str, Callable[[onnx.NodeProto, Shapes], int]]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
}
# Operators that multiply in ways their name and shapes do not tell.
_UNCOUNTED: Final = frozenset({"Einsum", "Attention", "MultiHeadAttention", "DeformConv"})
