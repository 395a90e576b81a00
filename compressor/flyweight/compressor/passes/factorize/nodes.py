"""Gemm, MatMul and Conv nodes of an ONNX graph as layers, and back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flyweight.compressor.onnx_model import all_graphs
from flyweight.compressor.passes.factorize.decomposition import Array, Responses
from flyweight.compressor.passes.factorize.layers import Geometry, Layer, Stage

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node whose weight is stored in the graph for it alone.

    Attributes:
        node: Gemm, MatMul or Conv.
        weight: shape (out, in, height, width); of a Gemm already multiplied by alpha.
        bias: shape (out,), of a Gemm already multiplied by beta; None where the node has no place for one.
        geometry: of the kernel, places not yet known.
        dtype: of the stored weight.
    """

    node: onnx.NodeProto
    weight: Array
    bias: Array | None
    geometry: Geometry
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """The node's name, or its output's where it has none."""
        return self.node.name or self.output

    @property
    def output(self) -> str:
        """The tensor that the node writes."""
        return self.node.output[0]

    def flattened(self, answers: NDArray[Any]) -> NDArray[Any]:
        """Return what the node answered as rows of channels."""
        last = np.moveaxis(answers, 1, -1) if self.node.op_type == "Conv" else answers
        return last.reshape(-1, last.shape[-1])

    def layer(self, places: float, responses: Responses | None) -> Layer:
        """Return the node as a layer that runs at so many places for one sample."""
        geometry = Geometry(self.geometry.strides, self.geometry.pads, self.geometry.dilations, places)
        return Layer(self.name, self.weight, self.bias, geometry, responses)


def candidates(graph: onnx.ModelProto) -> list[Candidate]:
    """Return the nodes of the main graph that can be factorised; their names are made unique, in place."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.data_type in _FLOATS}
    uses = Counter(name for part in all_graphs(graph.graph) for node in part.node for name in node.input)
    names = set[str]()
    found = []
    for node in graph.graph.node:
        if node.name in names:
            node.name = ""
        candidate = _candidate(node, stored, uses)
        if candidate is not None:
            found.append(candidate)
            names.add(candidate.name)
    return found


def _candidate(
    node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], uses: Mapping[str, int]
) -> Candidate | None:
    if node.domain not in {"", "ai.onnx"} or node.op_type not in {"Gemm", "MatMul", "Conv"}:
        return None
    tensor = stored.get(node.input[1])
    if tensor is None or uses[node.input[1]] != 1:
        return None
    array = numpy_helper.to_array(tensor)
    weight = array.astype(np.float64)
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    make = _convolution if node.op_type == "Conv" else _product
    return make(node, weight, options, stored) if np.isfinite(weight).all() else None


def _product(
    node: onnx.NodeProto, weight: Array, options: Mapping[str, Any], stored: Mapping[str, onnx.TensorProto]
) -> Candidate | None:
    if weight.ndim != 2 or options.get("transA"):
        return None
    matrix = (weight if options.get("transB") else weight.T) * options.get("alpha", 1.0)
    if not _has_stored_bias(node, len(matrix), stored):
        return None
    bias = None
    if node.op_type == "Gemm":
        bias = _bias(node, len(matrix), stored) * options.get("beta", 1.0)
    return Candidate(node, matrix[:, :, None, None], bias, Geometry(), _dtype(node, stored))


def _convolution(
    node: onnx.NodeProto, weight: Array, options: Mapping[str, Any], stored: Mapping[str, onnx.TensorProto]
) -> Candidate | None:
    auto_pad = options.get("auto_pad", b"NOTSET")
    if weight.ndim != 4 or options.get("group", 1) != 1 or auto_pad not in {b"NOTSET", b"VALID"}:
        return None
    if not _has_stored_bias(node, len(weight), stored):
        return None
    down, across = options.get("strides", [1, 1])
    tall, wide = options.get("dilations", [1, 1])
    top, left, bottom, right = options.get("pads", [0, 0, 0, 0]) if auto_pad == b"NOTSET" else [0, 0, 0, 0]
    geometry = Geometry((down, across), (top, left, bottom, right), (tall, wide))
    return Candidate(node, weight, _bias(node, len(weight), stored), geometry, _dtype(node, stored))


def _dtype(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> np.dtype[Any]:
    return numpy_helper.to_array(stored[node.input[1]]).dtype


def _has_stored_bias(node: onnx.NodeProto, channels: int, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a node has no bias, or one for each channel that is stored and not computed."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    dims = list(stored[node.input[2]].dims) if node.input[2] in stored else [-1]
    return dims in ([], [1], [channels], [1, 1], [1, channels])


def _bias(node: onnx.NodeProto, channels: int, stored: Mapping[str, onnx.TensorProto]) -> Array:
    """Return the bias, zeros where there is none, shape (channels,)."""
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(channels)
    array = numpy_helper.to_array(stored[node.input[2]]).astype(np.float64)
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def rewrite(
    graph: onnx.ModelProto, found: Mapping[str, Candidate], stages: Mapping[str, Sequence[Stage]]
) -> None:
    """Put the stages in the places of their nodes, and drop what nothing reads any more, in place."""
    nodes, dropped = list[onnx.NodeProto](), set[str]()
    by_output = {found[name].output: name for name in stages}
    for node in graph.graph.node:
        name = by_output.get(node.output[0]) if node.output else None
        if name is None:
            nodes.append(node)
            continue
        dropped.update(node.input[1:])
        new, tensors = _replacement(found[name], stages[name])
        nodes.extend(new)
        graph.graph.initializer.extend(tensors)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    used = {name for part in all_graphs(graph.graph) for node in part.node for name in node.input}
    used |= {output.name for output in graph.graph.output}
    kept = [tensor for tensor in graph.graph.initializer if tensor.name not in dropped - used]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)


def _replacement(
    candidate: Candidate, stages: Sequence[Stage]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes, tensors, source = list[onnx.NodeProto](), list[onnx.TensorProto](), candidate.node.input[0]
    for index, stage in enumerate(stages):
        last = index == len(stages) - 1
        target = candidate.output if last else f"{candidate.output}/factor{index}"
        inputs = [source, f"{candidate.output}/weight{index}"]
        tensors.append(_tensor(_stored(candidate, stage.weight), inputs[1], candidate.dtype))
        if stage.bias is not None:
            inputs.append(f"{candidate.output}/bias{index}")
            tensors.append(_tensor(stage.bias, inputs[2], candidate.dtype))
        options = _options(stage) if candidate.node.op_type == "Conv" else {}
        nodes.append(
            helper.make_node(
                candidate.node.op_type, inputs, [target], name=f"{candidate.name}/factor{index}", **options
            )
        )
        source = target
    return nodes, tensors


def _stored(candidate: Candidate, weight: Array) -> Array:
    """Return a weight as the node keeps it: a kernel, or a matrix (in, out)."""
    return weight if candidate.node.op_type == "Conv" else weight[:, :, 0, 0].T


def _options(stage: Stage) -> dict[str, Any]:
    return {
        "kernel_shape": list(stage.weight.shape[2:]),
        "strides": list(stage.geometry.strides),
        "pads": list(stage.geometry.pads),
        "dilations": list(stage.geometry.dilations),
    }


def _tensor(array: Array, name: str, dtype: np.dtype[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array.astype(dtype)), name)
