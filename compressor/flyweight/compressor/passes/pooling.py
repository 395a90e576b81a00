"""Rewriting a mean over all spatial axes to GlobalAveragePool, which ONNX Runtime can quantize."""

from collections.abc import Iterator
from typing import Final

import onnx
from onnx import helper, numpy_helper

from flyweight.compressor.onnx_model import all_graphs, attribute

SPATIAL_RANKS: Final = (3, 4, 5)
"""Batch, channels, and one to three spatial axes: what GlobalAveragePool pools."""


def pool_globally(model: onnx.ModelProto) -> int:
    """Replace, in place, each ReduceMean that is exactly a global average pool; return how many there were.

    It is one where its axes are all axes but the first two. Without kept axes, a Flatten follows the pool.
    The mean's output keeps its name, so that readers, graph outputs included, stay connected.
    """
    types = _types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced, nodes = 0, list[onnx.NodeProto]()
    for node in model.graph.node:
        axes = _axes(node, constants) if node.op_type == "ReduceMean" else None
        kind = types.get(node.input[0]) if axes else None
        rank = len(kind.shape.dim) if kind is not None else 0
        if axes and rank in SPATIAL_RANKS and sorted(axis % rank for axis in axes) == list(range(2, rank)):
            nodes.extend(_pool(node))
            if kind is not None and nodes[-1].op_type == "Flatten":
                # Who quantizes asks of every tensor whether it is of floats.
                pooled = helper.make_tensor_value_info(nodes[-1].input[0], kind.elem_type, None)
                model.graph.value_info.append(pooled)
            replaced += 1
        else:
            nodes.append(node)
    if replaced:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        _drop_unused(model)
    return replaced


def _pool(mean: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    source, target = mean.input[0], mean.output[0]
    if attribute(mean, "keepdims", 1):
        yield helper.make_node("GlobalAveragePool", [source], [target], name=mean.name)
        return
    pooled = f"{target}_pooled"
    yield helper.make_node("GlobalAveragePool", [source], [pooled], name=mean.name)
    yield helper.make_node("Flatten", [pooled], [target], name=f"{mean.name}_flatten", axis=1)


def _axes(mean: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    """Return the axes of a ReduceMean, an attribute before opset 18 and an input since; None if unknown."""
    if len(mean.input) > 1 and mean.input[1]:
        constant = constants.get(mean.input[1])
        return None if constant is None else [int(axis) for axis in numpy_helper.to_array(constant)]
    return attribute(mean, "axes", list[int]()) or None


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the types of all tensors of which the number of axes is known."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {
        value.name: value.type.tensor_type for value in values if value.type.tensor_type.HasField("shape")
    }


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove constants that nobody reads any more, and the shapes that were noted for tensors now gone."""
    read = {name for graph in all_graphs(model.graph) for node in graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
