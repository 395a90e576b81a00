"""Weights of 4 bits with a scale for each block of neighbours."""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.passes.quantize.layers import Layer

Array = NDArray[Any]

# Signed nibbles are stored with 8 added, as MatMulNBits has them without a zero point.
_OFFSET: Final = 8
_LARGEST: Final = 7
# The kernel that multiplies bytes; the others widen the weights in every run.
_ACCURACY_LEVEL: Final = 4


def quantize_blocks(rows: Array, block: int) -> tuple[Array, Array]:
    """Return nibbles (rows, blocks, block) from 0 to 15 and scales (rows, blocks), with w ~ (q - 8) * s.

    s = max|w| / 7 of the block, 1 where all are zero; |w - (q - 8) * s| <= s / 2. Rows (r, n) are filled up
    with zeros to whole blocks.
    """
    blocks = -(-rows.shape[1] // block)
    padded = np.zeros((len(rows), blocks * block), dtype=np.float32)
    padded[:, : rows.shape[1]] = rows
    grouped = padded.reshape(len(rows), blocks, block)
    peaks = np.abs(grouped).max(axis=2)
    scales = np.where(peaks > np.finfo(np.float32).tiny * _LARGEST, peaks / _LARGEST, 1).astype(np.float32)
    nibbles = np.clip(np.rint(grouped / scales[:, :, None]), -_LARGEST, _LARGEST) + _OFFSET
    return nibbles.astype(np.uint8), scales


def pack(nibbles: Array) -> Array:
    """Return bytes of two nibbles each along the last axis, the first in the lower half."""
    packed: Array = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    return packed.astype(np.uint8)


def multiply_by_nibbles(model: onnx.ModelProto, layer: Layer, block: int) -> None:
    """Make a MatMul a MatMulNBits, in place; B is (outputs, blocks, block / 2), scales (outputs * blocks)."""
    rows, node = layer.rows(), layer.node
    nibbles, scales = quantize_blocks(rows, block)
    names = [f"{layer.weight.name}__int4", f"{layer.weight.name}__int4_scale"]
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(pack(nibbles), names[0]),
            numpy_helper.from_array(scales.ravel(), names[1]),
        ]
    )
    made = helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=rows.shape[1],
        N=rows.shape[0],
        bits=4,
        block_size=block,
        accuracy_level=_ACCURACY_LEVEL,
    )
    graph.node.insert(list(graph.node).index(node), made)
    graph.node.remove(node)
    graph.initializer.remove(layer.weight)
    if not any(entry.domain == "com.microsoft" for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def store_as_nibbles(graph: onnx.GraphProto, layer: Layer, block: int) -> None:
    """Store a layer's weight in 4 bits, in place, with nodes that widen it when the model is loaded.

    Bytes are taken apart with shifts, which every opset has and onnxruntime folds at load; a DequantizeLinear
    of an int4 constant is not folded and would run every time.
    """
    rows, name, weight = layer.rows(), layer.weight.name, layer.weight
    nibbles, scales = quantize_blocks(rows, block)
    shape = list(weight.dims)
    # The first axis counts output channels from here on; a Gemm's weight may have them last.
    first = [shape[layer.axis], *(length for place, length in enumerate(shape) if place != layer.axis)]
    constants = {
        "int4": pack(nibbles)[..., None],
        "int4_scale": scales[:, :, None],
        "four": np.array(4, dtype=np.uint8),
        "eight": np.array(_OFFSET, dtype=np.float32),
        "blocks": np.array(nibbles.shape),
        "padded": np.array([len(rows), -1]),
        "length": np.array([rows.shape[1]]),
        "start": np.array([0]),
        "axis": np.array([1]),
        "shape": np.array(first),
    }
    called = {key: f"{name}__{key}" for key in constants}
    nodes = _widening(name, called, turned=layer.axis != 0)
    graph.initializer.remove(weight)
    graph.initializer.extend(numpy_helper.from_array(value, called[key]) for key, value in constants.items())
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _widening(name: str, called: dict[str, str], *, turned: bool) -> list[onnx.NodeProto]:
    """Return the nodes that give the tensor `name` from its packed form."""

    def step(operator: str, inputs: list[str], label: str, **attributes: Any) -> onnx.NodeProto:
        target = f"{name}__{label}"
        return helper.make_node(operator, inputs, [target], name=target, **attributes)

    def at(label: str) -> str:
        return f"{name}__{label}"

    packed, four = called["int4"], called["four"]
    nodes = [
        step("BitShift", [packed, four], "high", direction="RIGHT"),
        step("BitShift", [packed, four], "raised", direction="LEFT"),
        step("BitShift", [at("raised"), four], "low", direction="RIGHT"),
        step("Concat", [at("low"), at("high")], "pairs", axis=-1),
        step("Reshape", [at("pairs"), called["blocks"]], "nibbles"),
        step("Cast", [at("nibbles")], "wide", to=TensorProto.FLOAT),
        step("Sub", [at("wide"), called["eight"]], "signed"),
        step("Mul", [at("signed"), called["int4_scale"]], "scaled"),
        step("Reshape", [at("scaled"), called["padded"]], "rows"),
        step("Slice", [at("rows"), called["start"], called["length"], called["axis"]], "cut"),
        step("Reshape", [at("cut"), called["shape"]], "kernel"),
    ]
    if turned:
        nodes.append(step("Transpose", [at("kernel")], "turned", perm=[1, 0]))
    nodes[-1].output[0] = name
    return nodes
