"""An image's few channels become as many as integer convolutions take in one step.

onnxruntime's fast kernel for U8S8 convolutions (MlasConvSym) wants input channels in multiples of 4; for
other numbers it gathers patches byte by byte and multiplies matrices. A 3x3 convolution of a 224x224 image
with 3 channels took 285 us, with a fourth of zeros 138 us; adding it costs 12 us. Where all that read the
image move by two pixels, squares of pixels become channels instead: space_to_depth.py.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.view import View
from flyweight.compressor.passes.quantize.space_to_depth import (
    image_of_squares,
    over_squares,
    read_squares,
    squares,
)

_STEP: Final = 4


def widen_stems(model: onnx.ModelProto) -> list[str]:
    """Give quantized inputs that only convolutions read more channels, in place; return what was done.

    Squares of pixels become channels where every reader has stride 2 and there are at most 4 channels. Else
    zeros are added where there are 2 or 3 channels beyond a multiple of 4 and the kernel is larger than 1x1;
    from one channel to four the products grow more than the kernel gains. They meet weights of zero. No sum
    changes.
    """
    graph = model.graph
    shapes = View(graph)
    fed = {value.name for value in graph.input}
    done = []
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        chains = _chains(graph, quantize) if quantize.input[0] in fed else []
        if chains and _fold_squares(graph, quantize, chains, shapes.shape(quantize.input[0]) or ()):
            done.append("Squares of the image's pixels became channels, for integer kernels.")
        elif chains and all(_gains(weight) for *_, weight in chains):
            _pad(graph, quantize, chains)
            done.append("The input's channels were padded to a multiple of 4, which integer kernels want.")
    return done


Chain = tuple[onnx.NodeProto, onnx.NodeProto, onnx.TensorProto]


def _chains(graph: onnx.GraphProto, quantize: onnx.NodeProto) -> list[Chain]:
    """Return the dequantizers that read the input, with convolution and weights; none if a reader differs."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    chains = []
    for dequantize in _readers(graph, quantize.output[0]):
        if dequantize.op_type != "DequantizeLinear" or outputs & {*dequantize.output}:
            return []
        for reader in _readers(graph, dequantize.output[0]):
            maker = makers.get(reader.input[1]) if reader.op_type == "Conv" else None
            weight = stored.get(maker.input[0]) if maker is not None else None
            if maker is None or weight is None or len(weight.dims) < 3 or attribute(reader, "group", 1) != 1:
                return []
            # A weight that two images meet would be changed twice.
            if any(len(_readers(graph, name)) > 1 for name in (weight.name, maker.output[0])):
                return []
            chains.append((dequantize, reader, weight))
    return chains


def _fold_squares(
    graph: onnx.GraphProto, quantize: onnx.NodeProto, chains: list[Chain], image: Sequence[object]
) -> bool:
    """Let every reader see squares of pixels as channels, in place, and tell whether all can."""
    known = [length for length in image[1:] if isinstance(length, int)]
    if len(image) != 4 or len(known) != 3 or known[0] > _STEP:
        return False
    lengths = (known[0], known[1], known[2])
    found = [squares(reader, weight, image) for _, reader, weight in chains]
    if any(axes is None for axes in found):
        return False
    name = f"{quantize.output[0]}_squares"
    nodes, constants = image_of_squares(quantize.output[0], lengths, name)
    graph.initializer.extend(constants)
    _insert(graph, quantize, nodes)
    for (dequantize, reader, weight), axes in zip(chains, found, strict=True):
        assert axes is not None, "checked above"
        dequantize.input[0] = name
        values = over_squares(numpy_helper.to_array(weight), axes)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        read_squares(reader, axes)
    _forget_shapes(graph, chains)
    return True


def _gains(weight: onnx.TensorProto) -> bool:
    return weight.dims[1] % _STEP > 1 and int(np.prod(weight.dims[2:])) > 1


def _pad(graph: onnx.GraphProto, quantize: onnx.NodeProto, chains: list[Chain]) -> None:
    weight = chains[0][2]
    rank, missing = len(weight.dims), -weight.dims[1] % _STEP
    widths = np.zeros(2 * rank, dtype=np.int64)
    widths[rank + 1] = missing
    name = f"{quantize.output[0]}_four"
    graph.initializer.append(numpy_helper.from_array(widths, f"{name}_widths"))
    # The zero point stands for 0; what is padded meets weights of zero in any case.
    inputs = [quantize.output[0], f"{name}_widths", quantize.input[2]]
    pad = helper.make_node("Pad", inputs, [name], name=f"{quantize.name}_four")
    _insert(graph, quantize, [pad])
    for dequantize, _, tensor in chains:
        dequantize.input[0] = name
        values = numpy_helper.to_array(tensor)
        zeros = np.zeros((values.shape[0], missing, *values.shape[2:]), dtype=values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(np.concatenate([values, zeros], axis=1), tensor.name))
    _forget_shapes(graph, chains)


def _insert(graph: onnx.GraphProto, after: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
    place = list(graph.node).index(after) + 1
    for node in reversed(nodes):
        graph.node.insert(place, node)


def _forget_shapes(graph: onnx.GraphProto, chains: Sequence[Chain]) -> None:
    """Remove the notes of shapes that changed."""
    stale = {output for dequantize, _, tensor in chains for output in (*dequantize.output, tensor.name)}
    kept = [value for value in graph.value_info if value.name not in stale]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]
