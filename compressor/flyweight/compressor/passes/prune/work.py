"""How much work the layers of an ONNX graph are, and how much of it is left when channels go."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from flyweight.compressor.passes.layout.view import View
from flyweight.compressor.passes.prune.graph_channels import Channels
from flyweight.compressor.passes.quantize.layers import Layer, layers_of

DEPTHWISE: Final = 4.0
"""A multiply-add of a depthwise convolution takes as long as four others: kernels reach 50 thousand million a
second in depthwise convolutions where others reach 200 to 300 (onnxruntime 1.31, int8, AVX512-VNNI), and 40
where others reach 95 (fp32)."""


@dataclass(frozen=True, slots=True)
class _Share:
    """One layer's work, and the channels it is proportional to, by name; none where nothing can go."""

    work: float
    channels: tuple[str, ...]


class Work:
    """The multiply-adds of a graph's layers for one sample; depthwise ones count DEPTHWISE times.

    A layer with a of its A inputs and b of its B outputs has (a / A)(b / B) of its work.
    """

    def __init__(self, model: onnx.ModelProto, found: Sequence[Channels]) -> None:
        """Count, from the shapes in the graph; an axis of unknown length counts as one place."""
        view = View(model.graph)
        touched: dict[str, list[str]] = {}
        for channels in found:
            for layer in channels.layers():
                touched.setdefault(layer, []).append(channels.name)
        self._shares = [
            _Share(_multiply_adds(view, layer), tuple(touched.get(layer.name, ())))
            for layer in layers_of(model.graph)
        ]

    def left(self, kept: Mapping[str, float]) -> float:
        """Return the work that is left when of channels, by name, only fractions are kept."""
        return sum(
            share.work * math.prod(kept.get(name, 1.0) for name in share.channels) for share in self._shares
        )


def _multiply_adds(view: View, layer: Layer) -> float:
    shape = view.shape(layer.name) or ()
    places = shape[2:] if layer.node.op_type == "Conv" else shape[1:-1]
    known = math.prod(length for length in places if isinstance(length, int))
    depthwise = layer.groups > 1 and layer.groups == layer.channels
    return known * math.prod(layer.weight.dims) * (DEPTHWISE if depthwise else 1.0)
