"""Reads an ONNX file into what the importer walks through: nodes in order, and constants by name."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import inliner
from torch import Tensor

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.importer.patterns import fuse_patterns
from flyweight.compressor.importer.tensors import read_tensor
from flyweight.compressor.onnx_model import drop_initializer_inputs, load_graph


@dataclass(frozen=True, slots=True)
class Source:
    """A graph ready to be walked through.

    Attributes:
        nodes: in an order in which each finds its inputs; Constant nodes are gone.
        constants: initializers and Constant nodes, by name.
        inputs: what must be fed.
        outputs: what the graph returns.
        opsets: by domain; the standard one is empty.
        lengths: of the axes of tensors, by name; None for a free length.
        reads: how many nodes, or outputs of the graph, read each name.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: Mapping[str, int]
    reads: Mapping[str, int]
    lengths: Mapping[str, tuple[int | None, ...]]


def read_source(path: Path) -> Source:
    """Read and prepare a model.

    Raises:
        ModelError: it cannot be read, or holds tensors of types torch does not have.
    """
    model = load_graph(path)
    if model.functions:
        model = run_foreign(
            lambda: inliner.inline_local_functions(model),
            lambda reason: ModelError(f"The functions of {path} cannot be put in place ({reason})."),
        )
    drop_initializer_inputs(model)
    graph = model.graph
    nodes, constants = split_constants(graph)
    nodes = fuse_patterns(nodes, constants, {output.name for output in graph.output})
    return Source(
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(value.name for value in graph.input),
        outputs=tuple(value.name for value in graph.output),
        opsets={
            entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in model.opset_import
        },
        reads=count_reads(nodes, graph),
        lengths=_lengths(model),
    )


def _lengths(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return what shape inference finds out."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        # Larger than protobuf's messages, or wrong about its own shapes: nothing is known then.
        graph = model.graph
    return {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else None
            for axis in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def split_constants(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, Tensor]]:
    """Return the nodes that compute something, and the values of all others and of the initializers."""
    constants = {tensor.name: read_tensor(tensor) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        constants[sparse.values.name] = _dense(sparse)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
            constants[node.output[0]] = _constant(node)
        else:
            nodes.append(node)
    return nodes, constants


def count_reads(nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> Counter[str]:
    """Return how often each name is read, by nodes, by bodies inside them, and as outputs."""
    reads = Counter(output.name for output in graph.output)
    for node in nodes:
        reads.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                reads.update(count_reads(list(attribute.g.node), attribute.g))
    return reads


def _constant(node: onnx.NodeProto) -> Tensor:
    attribute = node.attribute[0]
    match attribute.name:
        case "value":
            return read_tensor(attribute.t)
        case "value_float":
            return torch.tensor(attribute.f, dtype=torch.float32)
        case "value_floats":
            return torch.tensor(list(attribute.floats), dtype=torch.float32)
        case "value_int":
            return torch.tensor(attribute.i, dtype=torch.int64)
        case "value_ints":
            return torch.tensor(list(attribute.ints), dtype=torch.int64)
        case "sparse_value":
            return _dense(attribute.sparse_tensor)
        case _:
            raise ModelError(
                f"The constant {node.output[0]!r} holds text ({attribute.name}), which torch has not; "
                "only ONNX passes fit this model."
            )


def _dense(sparse: onnx.SparseTensorProto) -> Tensor:
    values, indices = read_tensor(sparse.values), read_tensor(sparse.indices)
    dense = torch.zeros(list(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.view(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense
