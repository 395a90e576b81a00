"""Counting multiply-accumulate operations from the shapes in a graph."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import onnx

from flyweight.compressor.evaluate.attention_macs import (
    attention,
    multi_head_attention,
    projecting_attention,
)
from flyweight.compressor.evaluate.shapes import Shapes, shapes_of
from flyweight.compressor.feeding import Layout
from flyweight.compressor.onnx_model import all_graphs


def count_macs(model: onnx.ModelProto, layout: Layout, fed: Shapes | None = None) -> int | None:
    """Return the multiply-accumulate operations for one sample; None where the graph does not tell."""
    return explain_macs(model, layout, fed)[0]


def explain_macs(model: onnx.ModelProto, layout: Layout, fed: Shapes | None = None) -> tuple[int | None, str]:
    """Return the multiply-accumulate operations for one sample, or None and why they are not known.

    Counts convolutions, matrix products, recurrent cells and attention of the main graph, in fp32, int8 or 4
    bits; additions and activations do not count.

    Args:
        model: the graph; its weights need not be loaded.
        layout: which inputs have a batch axis, and how many rows a run takes.
        fed: the shapes of the inputs in a run, which say how long the graph's free axes are.
    """
    rows = layout.rows or 1
    for node in _nodes_of_bodies(model.graph):
        if node.op_type in _COUNTERS or node.op_type in _UNCOUNTED:
            return (
                None,
                f"It multiplies ({node.op_type}) inside an If or a Loop, as often as the data decide.",
            )
    shapes = shapes_of(model, layout, rows, fed or {})
    total = 0
    for node in model.graph.node:
        if node.op_type in _UNCOUNTED:
            return None, f"It has a {node.op_type}, whose multiplications are not counted."
        count = _COUNTERS.get(node.op_type)
        if count is None:
            continue
        try:
            total += count(node, shapes)
        except (KeyError, IndexError, StopIteration, ValueError):
            return None, f"The shapes around {node.op_type} {node.name or node.output[0]!r} are not known."
    return total // rows, ""


def _nodes_of_bodies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of all subgraphs."""
    bodies = all_graphs(graph)
    next(bodies)
    for body in bodies:
        yield from body.node


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
    common = shapes[node.input[0]][0 if _flag(node, "transA") else 1]
    return math.prod(shapes[node.output[0]]) * common


def _fused_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """As a product; the first factor may be transposed."""
    given = shapes[node.input[0]]
    common = given[-2] if _flag(node, "transA") else given[-1]
    return math.prod(shapes[node.output[0]]) * common


def _quantized_gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Rows of the first factor times the elements of the second, of which each row multiplies all."""
    first, second = shapes[node.input[0]], shapes[node.input[3]]
    return first[1 if _flag(node, "transA") else 0] * math.prod(second)


def _packed_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Elements of the first factor times the columns of the second, whose weights are packed by blocks."""
    columns = next(attribute.i for attribute in node.attribute if attribute.name == "N")
    return math.prod(shapes[node.input[0]]) * int(columns)


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


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
    "FusedConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "QGemm": _quantized_gemm,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product,
    "DynamicQuantizeMatMul": _product,
    "QLinearMatMul": _product,
    "FusedMatMul": _fused_product,
    "MatMulNBits": _packed_product,
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
    "Attention": attention,
    "QAttention": projecting_attention,
    "MultiHeadAttention": multi_head_attention,
}
# Operators that multiply in ways their name and shapes do not tell.
_UNCOUNTED: Final = frozenset(
    {"DeformConv", "Einsum", "GroupQueryAttention", "LongformerAttention", "MoE", "PackedAttention", "QMoE"}
)
