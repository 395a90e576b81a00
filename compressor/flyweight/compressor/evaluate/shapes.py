"""The shapes of all tensors in a graph, for a run of a known number of rows."""

from collections.abc import Callable, Mapping
from typing import Final

import onnx
from onnx import shape_inference

from flyweight.compressor.errors import CompressorError, ModelError
from flyweight.compressor.feeding import Layout
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.sessions import quiet_tools
from flyweight.compressor.symbolic_shapes import with_symbolic_shapes

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Of onnxruntime's operators on bytes: the standard one of the same shapes, and which inputs that takes.
_STANDARD: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearConcat": ("Concat", ()),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
}


def shapes_of(model: onnx.ModelProto, layout: Layout, rows: int, fed: Shapes) -> Shapes:
    """Return the shapes of all tensors of a run, as far as they can be inferred.

    Args:
        model: the graph; it stays as it is.
        layout: which inputs have a batch axis.
        rows: of the run.
        fed: the shapes of the inputs in a run of any number of rows, for axes that the graph leaves free.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        for dimension, length in zip(dimensions, fed.get(value.name, ()), strict=False):
            dimension.Clear()
            dimension.dim_value = length
        if value.name in layout.batched and dimensions:
            dimensions[0].Clear()
            dimensions[0].dim_value = rows
    for node in fixed.graph.node:
        _stand_in(node)
    # What was inferred for a free batch axis would win over what is inferred now.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = _inferred(fixed, lambda: shape_inference.infer_shapes(fixed, data_prop=True))
    if all(name in found for node in fixed.graph.node for name in node.output[:1]):
        return found
    # Knows onnxruntime's own operators, and shapes that are computed from shapes, but takes seconds.
    return {**_inferred(fixed, lambda: with_symbolic_shapes(fixed, partial=True)), **found}


def _stand_in(node: onnx.NodeProto) -> None:
    """Put the standard operator of the same shapes in the place of onnxruntime's on bytes, in a copy."""
    if node.domain != "com.microsoft" or node.op_type not in _STANDARD:
        return
    node.op_type, places = _STANDARD[node.op_type]
    node.domain = ""
    kept = [node.input[place] for place in places if place < len(node.input)]
    if node.op_type == "Concat":
        kept = list(node.input[2::3])
    del node.input[:]
    node.input.extend(kept)


def _inferred(model: onnx.ModelProto, infer: Callable[[], onnx.ModelProto]) -> Shapes:
    """Return those shapes that a tool infers whole; where it fails, those that are in the graph."""
    with quiet_tools():
        try:
            graph = run_foreign(infer, ModelError).graph
        except CompressorError:
            graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            shapes[value.name] = tuple(d.dim_value for d in dimensions)
    return shapes
