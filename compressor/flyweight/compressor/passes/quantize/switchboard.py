"""A model whose layers can be quantized and restored one by one, without building a session for each choice.

Every weighted layer i gets a switch: an input that chooses between its activation and weight as they are and
as 8 bits hold them, by Where(switch_i, Q(x), x). One session answers for every subset of layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.feeding import Layout, fit
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.quantize.calibration import Range
from flyweight.compressor.passes.quantize.layers import Layer, byte_grid, rounded
from flyweight.compressor.passes.quantize.placement import Placement
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet

Array = NDArray[Any]

# Of the calibration data: sensitivities only have to be ranked.
_SAMPLES: Final = 32
_ROWS: Final = 8
_SUFFIX: Final = "__quantized"


@dataclass(frozen=True, slots=True)
class Switchboard:
    """Answers of a model of which any layers are quantized.

    Attributes:
        session: of the model with switches.
        layers: what can be switched, in order.
        layout: how data are fed to the model without switches.
        data: some of the calibration samples.
        outputs: the model's own, which are floats.
    """

    session: Session
    layers: tuple[str, ...]
    layout: Layout
    data: "DataSet"
    outputs: tuple[str, ...]

    def answers(self, quantized: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Yield the outputs for one batch after the other with the named layers quantized."""
        chosen = set(quantized)
        switches = {f"{name}{_SUFFIX}": np.array(name in chosen) for name in self.layers}
        for feed in self.layout.feeds(self.data, _ROWS):
            answers = self.session.run({**feed, **switches})
            yield {name: answers[name] for name in self.outputs}


def build_switchboard(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[str, Range],
    placement: Placement,
    shifts: Mapping[str, Array],
    context: "Context",
) -> Switchboard:
    """Return the switchboard of a graph's layers.

    Args:
        model: the graph, nothing quantized.
        layers: of it, which get switches.
        ranges: of the activations they read.
        placement: how they will be quantized.
        shifts: what will be taken from the biases of quantized layers, by the layer's name.
        context: its calibration data are asked.

    Raises:
        ModelError: onnxruntime cannot load the model with switches.
        DataError: the calibration data do not fit the model.
    """
    switched = onnx.ModelProto()
    switched.CopyFrom(model)
    nodes = {node.output[0]: node for node in switched.graph.node if node.output}
    weights = {tensor.name: tensor for tensor in switched.graph.initializer}
    added = list[onnx.NodeProto]()
    for layer in layers:
        twin = Layer(nodes[layer.name], weights[layer.weight.name], layer.axis, layer.bias)
        added += _switch(switched.graph, twin, ranges[layer.source], placement)
        if layer.name in shifts:
            added.append(_switch_bias(switched.graph, twin, shifts[layer.name]))
    _insert(switched.graph, added)
    session = Session(
        save_graph(switched, context.new_path("switchboard")), SessionSettings(threads=context.threads)
    )
    plain = Session(save_graph(model, context.new_path("plain")), SessionSettings(optimise=False))
    data = context.calibration.first(_SAMPLES)
    layout = fit(data, plain.signature)
    floats = tuple(
        spec.name for spec in plain.signature.outputs if spec.dtype is not None and spec.dtype.kind == "f"
    )
    return Switchboard(session, tuple(layer.name for layer in layers), layout, data, floats)


def _switch(
    graph: onnx.GraphProto, layer: Layer, limits: Range, placement: Placement
) -> list[onnx.NodeProto]:
    """Put a switch before a layer's activation and weight, and return the nodes to add."""
    node, name = layer.node, layer.name
    scale, zero = byte_grid(*limits)
    rows = rounded(layer.rows(), 64 if placement.reduced else 127, per_channel=placement.per_channel)
    copy = onnx.TensorProto()
    copy.CopyFrom(layer.weight)
    copy.name = f"{name}__bytes"
    Layer(node, copy, layer.axis).set_rows(rows)
    grid = [f"{name}__s", f"{name}__z"]
    graph.initializer.extend(
        [
            copy,
            numpy_helper.from_array(np.array(scale, dtype=np.float32), grid[0]),
            numpy_helper.from_array(np.array(zero, dtype=np.uint8), grid[1]),
        ]
    )
    switch = f"{name}{_SUFFIX}"
    graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
    source, weight = node.input[0], node.input[1]
    node.input[0], node.input[1] = f"{name}__x", f"{name}__w"
    return [
        helper.make_node("QuantizeLinear", [source, *grid], [f"{name}__q"]),
        helper.make_node("DequantizeLinear", [f"{name}__q", *grid], [f"{name}__d"]),
        helper.make_node("Where", [switch, f"{name}__d", source], [f"{name}__x"]),
        helper.make_node("Where", [switch, copy.name, weight], [f"{name}__w"]),
    ]


def _switch_bias(graph: onnx.GraphProto, layer: Layer, shift: Array) -> onnx.NodeProto:
    """Put the switch before a layer's bias as well, and return the node to add."""
    name = layer.name
    before = np.zeros(layer.channels) if layer.bias is None else numpy_helper.to_array(layer.bias)
    for label, values in (("plain", before), ("shifted", before - shift)):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), f"{name}__{label}"))
    del layer.node.input[2:]
    layer.node.input.append(f"{name}__b")
    inputs = [f"{name}{_SUFFIX}", f"{name}__shifted", f"{name}__plain"]
    return helper.make_node("Where", inputs, [f"{name}__b"])


def _insert(graph: onnx.GraphProto, added: Sequence[onnx.NodeProto]) -> None:
    """Put nodes before the first one that reads from them."""
    makers = {name: node for node in added for name in node.output}
    ordered, placed = list[onnx.NodeProto](), set[str]()

    def put(name: str) -> None:
        maker = makers.get(name)
        if maker is None or name in placed:
            return
        placed.update(maker.output)
        for read in maker.input:
            put(read)
        ordered.append(maker)

    for node in graph.node:
        for name in node.input:
            put(name)
        ordered.append(node)
    del graph.node[:]
    graph.node.extend(ordered)
