"""Weight sharing in an ONNX graph, after training."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import (
    all_graphs,
    drop_initializer_inputs,
    lift_constants,
    load_graph,
    save_graph,
)
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.share.grouping import Kind, Sharing
from flyweight.compressor.passes.share.sharing import Weight, describe, share_weights

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

_DEFAULT: Final = Sharing()
# The inputs of an operator that hold weights, and the one that holds a bias.
_WEIGHTS: Final = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
_BIASES: Final = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
_FLOATS: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
# What stands between a stored weight and its layer without changing which values there are.
_ALIASES: Final = frozenset({"Cast", "Identity", "Transpose", "Reshape"})


@dataclass(frozen=True, slots=True)
class Share(Pass):
    """Replaces weights by the nearest of a few values (Han, Mao and Dally 2016, section 3).

    k-means finds the values of each codebook; zeros, which pruning leaves, keep an entry of their own. The
    graph computes as before, in fp32 and as fast: what sharing saves shows when the model is encoded, where a
    weight then takes at most `bits` bits. Without training, so 5 bits or more; see share-train.
    """

    name: ClassVar[str] = "share"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    sharing: Sharing = _DEFAULT

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model with shared weights.

        Raises:
            PassError: it has no weights to share, or some are not finite.
        """
        graph = load_graph(model.onnx_path())
        lift_constants(graph)
        drop_initializer_inputs(graph)
        tensors = dict(_shareable(graph))
        weights = [weight for weight, _ in tensors.values()]
        # A pruned model and its mask multiplied leave zeros of both signs.
        weights = [replace(weight, values=weight.values + 0.0) for weight in weights]
        shared = share_weights(weights, self.sharing)
        for one in shared:
            context.check_time()
            tensor = tensors[one.weight.name][1]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(one.values), tensor.name))
        path = save_graph(graph, context.new_path("share"))
        return PassResult(replace(model, path=path), changed=True, notes=(describe(shared),))


def _shareable(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[Weight, onnx.TensorProto]]]:
    """Yield the weights and biases of layers by name, those of subgraphs too."""
    roles: dict[str, Kind] = {}
    sources: dict[str, str] = {}
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in _ALIASES and node.input:
                sources[node.output[0]] = sources.get(node.input[0], node.input[0])
            for name, kind in _roles(node):
                roles.setdefault(sources.get(name, name), kind)
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            role = roles.get(tensor.name)
            if role is not None and tensor.data_type in _FLOATS and len(tensor.dims) >= _axes(role):
                yield tensor.name, (Weight(tensor.name, role, numpy_helper.to_array(tensor)), tensor)


def _roles(node: onnx.NodeProto) -> Iterator[tuple[str, Kind]]:
    """Yield the inputs of a node that hold weights or a bias."""
    for place in _WEIGHTS.get(node.op_type, ()):
        if place < len(node.input):
            convolves = node.op_type in {"Conv", "ConvTranspose"}
            yield node.input[place], Kind.CONVOLUTION if convolves else Kind.PRODUCT
    place = _BIASES.get(node.op_type, len(node.input))
    if place < len(node.input):
        yield node.input[place], Kind.VECTOR


def _axes(kind: Kind) -> int:
    return 1 if kind is Kind.VECTOR else 2
