"""An image's three channels become four, because integer convolutions take input channels by fours.

onnxruntime's fast kernel for U8S8 convolutions (MlasConvSym) wants input channels in multiples of 4; for
other numbers it gathers patches byte by byte and multiplies matrices. A 3x3 convolution of a 224x224 image
with 3 channels took 285 us, with a fourth of zeros 138 us; adding it costs 12 us.
"""

from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

_STEP: Final = 4


def pad_stems(model: onnx.ModelProto) -> int:
    """Pad the channels of quantized inputs that only convolutions read, in place; return how many inputs.

    The padded channels meet weights of zero, so every sum stays what it was. Padded is where there are 2 or 3
    channels beyond a multiple of 4 and the kernel is larger than 1x1; from one channel to four the products
    grow more than the kernel gains.
    """
    graph = model.graph
    fed = {value.name for value in graph.input}
    padded = 0
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        if quantize.input[0] not in fed:
            continue
        chains = _chains(graph, quantize)
        if chains:
            _pad(graph, quantize, chains)
            padded += 1
    return padded


Chain = tuple[onnx.NodeProto, onnx.TensorProto]


def _chains(graph: onnx.GraphProto, quantize: onnx.NodeProto) -> list[Chain]:
    """Return the dequantizers that read the input, with the weights to pad; none if a reader differs."""
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
            if weight is None or len(_readers(graph, weight.name)) != 1 or not _gains(reader, weight):
                return []
            chains.append((dequantize, weight))
    return chains


def _gains(convolution: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    groups = next((a.i for a in convolution.attribute if a.name == "group"), 1)
    channels = weight.dims[1] if len(weight.dims) > 2 else 0
    return groups == 1 and channels % _STEP > 1 and int(np.prod(weight.dims[2:])) > 1


def _pad(graph: onnx.GraphProto, quantize: onnx.NodeProto, chains: list[Chain]) -> None:
    weight = chains[0][1]
    rank, missing = len(weight.dims), -weight.dims[1] % _STEP
    widths = np.zeros(2 * rank, dtype=np.int64)
    widths[rank + 1] = missing
    name = f"{quantize.output[0]}_four"
    graph.initializer.append(numpy_helper.from_array(widths, f"{name}_widths"))
    # The zero point stands for 0; what is padded meets weights of zero in any case.
    inputs = [quantize.output[0], f"{name}_widths", quantize.input[2]]
    pad = helper.make_node("Pad", inputs, [name], name=f"{quantize.name}_four")
    graph.node.insert(list(graph.node).index(quantize) + 1, pad)
    for dequantize, tensor in chains:
        dequantize.input[0] = name
        values = numpy_helper.to_array(tensor)
        zeros = np.zeros((values.shape[0], missing, *values.shape[2:]), dtype=values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(np.concatenate([values, zeros], axis=1), tensor.name))
    stale = {output for dequantize, tensor in chains for output in (*dequantize.output, tensor.name)}
    kept = [value for value in graph.value_info if value.name not in stale]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]
