"""Half-precision graphs widened to fp32, which is what 8-bit weights and scales are made from.

onnxruntime's CPU kernels compute in fp32 all the same, with casts around every operator: what is quantized
from the widened graph is faster than the halves, and smaller.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.onnx_model import all_graphs

# Attributes by which operators say the type of what they make.
_TYPED: Final = frozenset({"to", "dtype", "output_dtype"})


def widen(model: onnx.ModelProto) -> bool:
    """Make fp32 of all halves in a graph, in place; return whether there were weights in halves.

    Inputs and outputs keep their types: they are cast where the graph begins and ends.
    """
    halves = [tensor for tensor in _tensors(model) if tensor.data_type == TensorProto.FLOAT16]
    passed_on = {value.name for value in model.graph.input} & {value.name for value in model.graph.output}
    if model.functions or passed_on or not any(len(tensor.dims) > 1 for tensor in halves):
        return False
    for tensor in halves:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in all_graphs(model.graph):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPED and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
        for value in _inner_values(graph, main=graph is model.graph):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    _cast_inputs(model.graph)
    _cast_outputs(model.graph)
    return True


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _inner_values(graph: onnx.GraphProto, *, main: bool) -> Iterator[onnx.ValueInfoProto]:
    """Return the values whose types are the graph's own business: those of a body all, of the model not."""
    return chain(graph.value_info) if main else chain(graph.value_info, graph.input, graph.output)


def _cast_inputs(graph: onnx.GraphProto) -> None:
    casts = []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            wide = f"{value.name}_wide"
            _rename(graph, value.name, wide, made=False)
            casts.append(helper.make_node("Cast", [value.name], [wide], name=wide, to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        graph.node.insert(place, cast)


def _cast_outputs(graph: onnx.GraphProto) -> None:
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            wide = f"{value.name}_wide"
            _rename(graph, value.name, wide, made=True)
            graph.node.append(
                helper.make_node("Cast", [wide], [value.name], name=wide, to=TensorProto.FLOAT16)
            )


def _rename(graph: onnx.GraphProto, old: str, new: str, *, made: bool) -> None:
    """Let all who read a tensor, and who made it if asked, know it by another name, in bodies as well."""
    for tensor in graph.initializer if made else ():
        if tensor.name == old:
            tensor.name = new
    for inner in all_graphs(graph):
        for node in inner.node:
            for names in (node.input, node.output) if made else (node.input,):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
