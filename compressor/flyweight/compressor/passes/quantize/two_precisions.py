"""Products that stayed in floating point among quantized ones, made dynamic: bytes, ranges of each run."""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.quantize.layers import Layer, layers_of, scales_of


def multiply_dynamically(model: onnx.ModelProto, names: Collection[str], largest: int) -> int:
    """Make the named MatMul and Gemm nodes dynamic, in place, and return how many there were.

    y = s_x s_w ((q_x - z_x) q_w) + b, with s_x and z_x from the range of x in this run
    (DynamicQuantizeLinear) and a scale s_w for each output channel. onnxruntime fuses the
    five operators into one.
    """
    graph, done = model.graph, 0
    for layer in layers_of(graph):
        node = layer.node
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1
        plain = plain and not attribute(node, "transA", 0)
        if node.op_type in {"MatMul", "Gemm"} and node.name in names and plain:
            _replace(graph, layer, largest)
            done += 1
    return done


def _replace(graph: onnx.GraphProto, layer: Layer, largest: int) -> None:
    node, name = layer.node, layer.name
    rows = layer.rows()
    scales = scales_of(rows, largest, per_channel=True)
    # MatMulInteger wants the weight as (inputs, outputs).
    weight = np.ascontiguousarray(np.clip(np.rint(rows / scales), -largest, largest).T.astype(np.int8))
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else ""
    graph.initializer.extend(
        [
            numpy_helper.from_array(weight, f"{name}__int8"),
            numpy_helper.from_array(np.ascontiguousarray(scales.ravel()), f"{name}__weight_scale"),
        ]
    )
    product = f"{name}__product" if bias else name
    x = [f"{name}__xq", f"{name}__xs", f"{name}__xz"]
    made = [
        helper.make_node("DynamicQuantizeLinear", [node.input[0]], x, name=f"{node.name}_quantize"),
        helper.make_node(
            "MatMulInteger", [x[0], f"{name}__int8", x[2]], [f"{name}__i32"], name=f"{node.name}_int"
        ),
        helper.make_node("Cast", [f"{name}__i32"], [f"{name}__f32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [x[1], f"{name}__weight_scale"], [f"{name}__rescale"]),
        helper.make_node("Mul", [f"{name}__f32", f"{name}__rescale"], [product], name=node.name),
    ]
    if bias:
        made.append(helper.make_node("Add", [product, bias], [name], name=f"{node.name}_bias"))
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(made):
        graph.node.insert(place + offset, new)
    graph.initializer.remove(layer.weight)
