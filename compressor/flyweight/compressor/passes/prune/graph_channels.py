"""Channels inside an ONNX graph that a single layer reads, and every stored number that belongs to one.

A convolution or product makes them; between it and the reader there may be activations, depthwise
convolutions, poolings, normalisations and constants for each channel, and a flattening. What other layers
read too (the stream that residual sums add to, say) is left alone: its channels cannot go without touching
all its writers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.view import View
from flyweight.compressor.passes.quantize.layers import Layer, layers_of

_UNARY: Final = (
    {"Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"}
    | {"Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh"}
    | {"ThresholdedRelu"}
)
_BINARY: Final = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"}
_POOLS: Final = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"}


@dataclass(frozen=True, slots=True)
class Slot:
    """A stored tensor with one place, or a row of `block` places, for each channel along an axis."""

    name: str
    axis: int
    block: int = 1


@dataclass(frozen=True, slots=True)
class Channels:
    """Channels that may go.

    Attributes:
        maker: the layer that makes them.
        reader: the layer that reads them; `reader.source` is what it reads.
        block: how many columns of the reader's weights each channel has: kernel positions, or the pixels of
            a map that was flattened.
        slots: the tensors that lose places with the channels, the reader's weight among them.
        depthwise: convolutions with one filter for each channel.
        reshapes: nodes that flatten to a constant shape, which changes with the channels.
    """

    maker: Layer
    reader: Layer
    block: int
    slots: tuple[Slot, ...]
    depthwise: tuple[onnx.NodeProto, ...]
    reshapes: tuple[onnx.NodeProto, ...]

    @property
    def name(self) -> str:
        """The tensor that the layer which makes them gives."""
        return self.maker.name

    @property
    def width(self) -> int:
        """How many there are."""
        return self.maker.channels

    def layers(self) -> tuple[str, ...]:
        """Return the tensors of the layers whose work shrinks with the channels."""
        return (self.name, *(node.output[0] for node in self.depthwise), self.reader.name)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor has its channels: the axis, the tensor's rank, and whether maps were flattened."""

    axis: int
    rank: int
    flat: bool = False


class _MismatchError(Exception):
    """A node does something else with the channels than keep them apart."""


@dataclass(slots=True)
class _Walk:
    """Follows the channels of one layer through the graph."""

    view: View
    layers: dict[str, Layer]
    width: int
    places: dict[str, _Place] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    depthwise: list[onnx.NodeProto] = field(default_factory=list)
    reshapes: list[onnx.NodeProto] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)

    def take(self, node: onnx.NodeProto) -> None:
        """Follow the channels through one node that reads them."""
        source = next(name for name in node.input if name in self.places)
        place, operator = self.places[source], node.op_type
        layer = self.layers.get(node.output[0])
        if layer is not None and layer.source == source and self._depthwise(node, layer, place):
            self.depthwise.append(node)
            self._cut(node, (*node.input[1:3],))
        elif layer is not None:
            self._read(layer, place)
            return
        elif operator in _UNARY or operator in _BINARY:
            self._elementwise(node, place)
        elif operator in _POOLS and place.axis == 1 and not place.flat and len(node.output) == 1:
            pass
        elif operator == "BatchNormalization" and place.axis == 1 and len(node.output) == 1:
            self._cut(node, (*node.input[1:5],))
        else:
            place = self._flattened(node, place)
        self.mark(node.output[0], place)

    def mark(self, name: str, place: _Place) -> None:
        """Note where a tensor has the channels; neither callers nor bodies of the graph may see it."""
        if self.view.is_output(name) or any(name not in node.input for node in self.view.consumers(name)):
            raise _MismatchError
        self.places[name] = place

    def _depthwise(self, node: onnx.NodeProto, layer: Layer, place: _Place) -> bool:
        groups = attribute(node, "group", 1)
        return (
            node.op_type == "Conv"
            and groups == layer.channels == self.width
            and place == _Place(1, place.rank)
        )

    def _read(self, layer: Layer, place: _Place) -> None:
        """Take the layer for the reader of the channels."""
        node = layer.node
        last = place.axis in {-1, place.rank - 1}
        fits = place == _Place(1, place.rank) if node.op_type == "Conv" else last
        odd = attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or _pads_by_itself(node)
        columns = layer.rows().shape[1]
        multiplied = [number for number, name in enumerate(node.input) if name in self.places] == [0]
        if not fits or odd or not multiplied or layer.groups != 1 or columns % self.width:
            raise _MismatchError
        if node.op_type != "Conv" and columns != self.width and not place.flat:
            raise _MismatchError
        self.readers.append(layer)

    def _elementwise(self, node: onnx.NodeProto, place: _Place) -> None:
        for name in dict.fromkeys(node.input):
            if not name:
                continue
            if name in self.places:
                if self.places[name] != place:
                    raise _MismatchError
                continue
            if name not in self.view.stored:
                raise _MismatchError
            self._constant(node, name, place)

    def _constant(self, node: onnx.NodeProto, name: str, place: _Place) -> None:
        """Note which axis of a constant counts channels, if one does."""
        dims = list(self.view.stored[name].dims)
        if place.axis >= 0 and len(dims) > place.rank:
            # What it meets gets further axes in front, and the channels move.
            raise _MismatchError
        if all(length == 1 for length in dims):
            return
        axis = place.axis if place.axis < 0 else place.axis - place.rank
        one_each = len(dims) >= -axis and dims[axis] == self.width
        alone = one_each and int(np.prod(dims)) == self.width
        if not alone or place.flat:
            raise _MismatchError
        self._cut(node, (name,), len(dims) + axis)

    def _cut(self, node: onnx.NodeProto, names: Sequence[str], axis: int = 0) -> None:
        """Note tensors that lose places; each must be this node's alone."""
        for name in names:
            tensor = self.view.stored.get(name)
            alone = self.view.consumers(name) == [node] and list(node.input).count(name) == 1
            if name and (tensor is None or not alone or tensor.dims[axis] != self.width):
                raise _MismatchError
            if name:
                self.slots.append(Slot(name, axis))

    def _flattened(self, node: onnx.NodeProto, place: _Place) -> _Place:
        """Return where channels are after the maps became rows, or lost their spatial axes."""
        if place.axis != 1 or place.flat:
            raise _MismatchError
        if node.op_type == "Flatten" and attribute(node, "axis", 1) == 1:
            return _Place(1, 2, flat=True)
        if node.op_type == "Reshape" and self._makes_rows(node):
            self.reshapes.append(node)
            return _Place(1, 2, flat=True)
        if node.op_type == "ReduceMean" and place.rank > 2:
            axes = self._axes(node)
            if sorted(axis % place.rank for axis in axes) == list(range(2, place.rank)):
                return place if attribute(node, "keepdims", 1) else _Place(1, 2)
        raise _MismatchError

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        if len(node.input) > 1 and node.input[1]:
            stored = self.view.stored.get(node.input[1])
            return [] if stored is None else [int(axis) for axis in numpy_helper.to_array(stored).ravel()]
        return list(attribute(node, "axes", list[int]()))

    def _makes_rows(self, node: onnx.NodeProto) -> bool:
        """Tell whether a Reshape to a constant shape keeps the samples and joins all else."""
        stored, before = self.view.stored.get(node.input[1]), self.view.shape(node.input[0])
        wanted = [] if stored is None else [int(length) for length in numpy_helper.to_array(stored).ravel()]
        if before is None or len(wanted) != 2 or attribute(node, "allowzero", 0):
            return False
        rest = [length for length in before[1:] if isinstance(length, int)]
        joined = int(np.prod(rest)) if len(rest) == len(before) - 1 else None
        samples_stay = wanted[0] == 0 or (isinstance(before[0], int) and wanted[0] == before[0])
        return (samples_stay and wanted[1] in {-1, joined}) or (wanted[0] == -1 and wanted[1] == joined)


def _pads_by_itself(node: onnx.NodeProto) -> bool:
    return attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}


def inner_channels(model: onnx.ModelProto) -> list[Channels]:
    """Return all channels of the main graph that one layer makes and one layer reads, in the graph's order.

    Args:
        model: its constants lifted to initializers, its shapes inferred.
    """
    view = View(model.graph)
    layers = {layer.name: layer for layer in layers_of(model.graph)}
    found = [_follow(view, layers, name) for name, layer in layers.items() if layer.groups == 1]
    return [channels for channels in found if channels is not None]


def _follow(view: View, layers: dict[str, Layer], name: str) -> Channels | None:
    maker = layers[name]
    place = _Place(-1, 0) if maker.node.op_type == "MatMul" else _Place(1, len(maker.weight.dims))
    walk = _Walk(view, layers, maker.channels)
    try:
        walk.mark(name, place)
        walk.slots.extend(_own_slots(view, maker))
        for node in _after(view.graph, maker.node):
            if not walk.places.keys().isdisjoint(node.input):
                walk.take(node)
    except _MismatchError:
        return None
    if len(walk.readers) != 1:
        return None
    reader = walk.readers[0]
    if not (_has_own_weight(view, maker) and _has_own_weight(view, reader)):
        return None
    block = reader.rows().shape[1] // maker.channels
    convolves = reader.node.op_type == "Conv"
    walk.slots.append(Slot(reader.weight.name, 1 - reader.axis, 1 if convolves else block))
    return Channels(maker, reader, block, tuple(walk.slots), tuple(walk.depthwise), tuple(walk.reshapes))


def _after(graph: onnx.GraphProto, maker: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes behind one, which are all that can read from it."""
    nodes = iter(graph.node)
    next(node for node in nodes if node is maker)
    return nodes


def _has_own_weight(view: View, layer: Layer) -> bool:
    """Tell whether a layer's weight is neither read in the body of an If or Loop nor an output."""
    name = layer.weight.name
    return view.consumers(name) == [layer.node] and not view.is_output(name)


def _own_slots(view: View, maker: Layer) -> list[Slot]:
    slots = [Slot(maker.weight.name, maker.axis)]
    given = maker.node.input[2] if len(maker.node.input) > 2 else ""
    if given and maker.bias is None and list(view.stored[given].dims if given in view.stored else [0]) != [1]:
        raise _MismatchError
    if maker.bias is not None:
        if not maker.has_own_bias(view.graph) or len(view.consumers(maker.bias.name)) > 1:
            raise _MismatchError
        slots.append(Slot(maker.bias.name, 0))
    return slots
