"""Biases that undo what quantization does to the mean of each channel.

Rounding the weights of a layer and clipping its input shift the mean of each output channel, and a shift of
the mean, unlike noise, adds up over the layers. With y = W x + b in floating point and y~ = Q(W) Q(x) + b:

    b <- b - E[y~ - y]

(M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019, section 4.2, equation 16, the expectation taken over calibration data.)

Every layer is given the true x, so that all shifts are measured in one run over the data, and none is
corrected twice.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flyweight.compressor.onnx_model import attribute, onnx_opset
from flyweight.compressor.passes.quantize.calibration import Range, observe
from flyweight.compressor.passes.quantize.layers import Layer, byte_grid, layers_of, rounded
from flyweight.compressor.passes.quantize.placement import Placement

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Array = NDArray[Any]

# ReduceMean takes its axes as an input since then.
_AXES_ARE_INPUTS: Final = 18


def correct_biases(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    ranges: Mapping[str, Range],
    placement: Placement,
    context: "Context",
) -> int:
    """Shift the biases of all layers that will be quantized, in place; return of how many.

    A MatMul has no bias and gets none: the addition would be an operator more in every run.

    Args:
        model: changed; its weights may have been rounded already.
        original: the same graph with the weights it had; its answers are what means should be.
        ranges: of the activations.
        placement: how the graph will be quantized.
        context: its calibration data are used.

    Raises:
        DataError: the calibration data do not fit the model.
    """
    layers = correctable(model, ranges, placement)
    if not layers:
        return 0
    shifts = measure_shifts(original, layers, ranges, placement, context)
    for layer in layers:
        shift_bias(model.graph, layer, shifts[layer.name])
    return len(layers)


def correctable(model: onnx.ModelProto, ranges: Mapping[str, Range], placement: Placement) -> list[Layer]:
    """Return the layers that will be quantized and have, or can be given, a bias for each channel."""
    layers = layers_of(model.graph, placement.exclude)
    return [layer for layer in layers if layer.source in ranges and _has_place(layer)]


def measure_shifts(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[str, Range],
    placement: Placement,
    context: "Context",
) -> dict[str, Array]:
    """Return E[y~ - y] of each layer, by its name: one number for each output channel.

    The true y is that of the graph `model`, the quantized y~ that of the weights in `layers`.
    """
    doubled = onnx.ModelProto()
    doubled.CopyFrom(model)
    names = [_shadow(doubled, layer, ranges[layer.source], placement) for layer in layers]
    sums = {name: np.zeros(layer.channels) for name, layer in zip(names, layers, strict=True)}
    total = 0
    for rows, values in observe(doubled, names, context, "measuring shifts"):
        total += rows
        for name in names:
            sums[name] += rows * values[name]
    return {layer.name: sums[name] / total for name, layer in zip(names, layers, strict=True)}


def _shadow(model: onnx.ModelProto, layer: Layer, limits: Range, placement: Placement) -> str:
    """Add the layer as it will be quantized beside the layer as it is; return the mean difference's name."""
    graph, name = model.graph, f"{layer.name}__shift"
    scale, zero = byte_grid(*limits)
    largest = 64 if placement.reduced else 127
    weight = onnx.TensorProto()
    weight.CopyFrom(layer.weight)
    weight.name = f"{name}_weight"
    quantized = Layer(layer.node, weight, layer.axis)
    quantized.set_rows(rounded(layer.rows(), largest, per_channel=placement.per_channel))
    grid = [f"{name}_scale", f"{name}_zero"]
    graph.initializer.extend(
        [
            weight,
            numpy_helper.from_array(np.array(scale, dtype=np.float32), grid[0]),
            numpy_helper.from_array(np.array(zero, dtype=np.uint8), grid[1]),
            numpy_helper.from_array(np.array([-1, layer.channels]), f"{name}_shape"),
        ]
    )
    twin = onnx.NodeProto()
    twin.CopyFrom(layer.node)
    twin.name, twin.input[0], twin.input[1], twin.output[0] = name, f"{name}_x", weight.name, f"{name}_y"
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", [layer.source, *grid], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_x"]),
            twin,
            helper.make_node("Sub", [f"{name}_y", layer.name], [f"{name}_d"]),
            *_mean(layer, name),
        ]
    )
    axes = [0, *range(2, len(layer.weight.dims))] if layer.node.op_type == "Conv" else [0]
    if onnx_opset(model) >= _AXES_ARE_INPUTS:
        graph.initializer.append(numpy_helper.from_array(np.array(axes), f"{name}_axes"))
        graph.node[-1].input.append(f"{name}_axes")
    else:
        graph.node[-1].attribute.append(helper.make_attribute("axes", axes))
    return name


def _mean(layer: Layer, name: str) -> list[onnx.NodeProto]:
    if layer.node.op_type == "Conv":
        return [helper.make_node("ReduceMean", [f"{name}_d"], [name], keepdims=0)]
    return [
        helper.make_node("Reshape", [f"{name}_d", f"{name}_shape"], [f"{name}_rows"]),
        helper.make_node("ReduceMean", [f"{name}_rows"], [name], keepdims=0),
    ]


def _has_place(layer: Layer) -> bool:
    """Tell whether the layer has, or can be given, a bias with a number for each channel."""
    node = layer.node
    if node.op_type == "MatMul" or attribute(node, "beta", 1.0) != 1:
        return False
    return layer.bias is not None or len(node.input) < 3 or not node.input[2]


def shift_bias(graph: onnx.GraphProto, layer: Layer, shift: Array) -> None:
    """Take the shift from the layer's bias, in a tensor of its own since others may read the old one."""
    node = layer.node
    before = np.zeros(layer.channels) if layer.bias is None else numpy_helper.to_array(layer.bias)
    name = f"{layer.name}__corrected"
    graph.initializer.append(numpy_helper.from_array((before - shift).astype(np.float32), name))
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)
    if layer.bias is not None and not any(layer.bias.name in other.input for other in graph.node):
        graph.initializer.remove(layer.bias)
