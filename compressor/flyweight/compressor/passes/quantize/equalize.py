"""Cross-layer equalisation: channels of neighbouring layers scaled to use their ranges alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import attribute, save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.layers import Layer, layers_of
from flyweight.compressor.passes.quantize.opening import open_graph
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Array = NDArray[Any]
Clips = Literal["skip", "scale", "drop"]

# f(s x) = s f(x) for every s > 0: what equalisation needs between two layers.
_HOMOGENEOUS: Final = frozenset({"Relu", "LeakyRelu"})
_SWEEPS: Final = 20
_SETTLED: Final = 1e-3
# Further than this a channel is no longer equalised but annihilated.
_LARGEST_FACTOR: Final = 1e4


@dataclass(frozen=True, slots=True)
class Equalize(Pass):
    """Scales channel i between two layers by s_i, so that both layers' weights use their ranges alike.

    With f(s x) = s f(x) between them, W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1) for any diagonal S > 0.
    Chosen is s_i = sqrt(r1_i r2_i) / r2_i, r1_i and r2_i being the largest magnitudes of row i of W1 and of
    column i of W2 (M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", ICCV 2019, equation 11), from pair to pair until nothing moves. For a step before static-int8
    with one scale for each weight; with scales per channel, W1 gains nothing and only activations and W2 can.

    Attributes:
        clips: what to do with a clip such as ReLU6 between two layers, which is not homogeneous. "skip"
            leaves the pair alone. "drop" makes the clip a ReLU, as the paper does; it changes answers where
            the clip was reached. "scale" keeps the answers with a limit for each channel, in a Min that
            onnxruntime runs in floating point.
    """

    name: ClassVar[str] = "equalize"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    clips: Clips = "skip"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.clips not in {"skip", "scale", "drop"}:
            raise RecipeError(f"clips is skip, scale or drop, not {self.clips!r}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the equalised model.

        Raises:
            PassError: no two layers follow each other with only a homogeneous function between.
        """
        with quiet_tools():
            graph = open_graph(model, context, reduce_range=False).graph
            pairs = list(_pairs(graph.graph, self.clips))
            if not pairs:
                more = "; with clips: drop or scale, a clip may be there too" if self.clips == "skip" else ""
                raise PassError(f"No two layers follow each other with nothing or a ReLU between{more}.")
            factors = equalize(pairs)
            for pair in pairs:
                if pair.clip is not None:
                    _rewrite_clip(graph.graph, pair, factors[pair.first.name], self.clips)
            path = save_graph(graph, context.new_path("equalize"))
        clipped = sum(pair.clip is not None for pair in pairs)
        notes = [f"{len(pairs)} pairs of layers were equalised."]
        if clipped:
            how = "became ReLUs" if self.clips == "drop" else "got a limit for each channel"
            notes.append(f"{clipped} clips between them {how}.")
        return PassResult(Model(path=path), changed=True, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers of which the second alone reads what the first gives.

    Attributes:
        first: gives the channels.
        second: reads them; a depthwise convolution reads each with one filter of its own.
        clip: the node between them that limits values from above, or None.
    """

    first: Layer
    second: Layer
    clip: onnx.NodeProto | None = None

    @property
    def depthwise(self) -> bool:
        """Whether the second layer has one filter, and one output channel, for each channel."""
        return self.second.node.op_type == "Conv" and self.second.groups == self.first.channels


def equalize(pairs: list[Pair]) -> dict[str, Array]:
    """Scale the weights of all pairs, in place, and return the factor s of each first layer's channels."""
    total = {pair.first.name: np.ones(pair.first.channels) for pair in pairs}
    for _ in range(_SWEEPS):
        moved = 0.0
        for pair in pairs:
            factors = factors_of(np.abs(pair.first.rows()).max(axis=1), _column_peaks(pair))
            _scale(pair, factors)
            total[pair.first.name] *= factors
            moved = max(moved, float(np.abs(np.log(factors)).max()))
        if moved < _SETTLED:
            break
    return total


def factors_of(first: Array, second: Array) -> Array:
    """Return s_i = sqrt(r1_i r2_i) / r2_i for the ranges r1 and r2; 1 where a range is zero."""
    usable = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones(len(first)), where=usable)
    factors: Array = np.clip(np.sqrt(ratio), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    return factors


def _column_peaks(pair: Pair) -> Array:
    rows = np.abs(pair.second.rows())
    columns = rows.reshape(1 if pair.depthwise else len(rows), pair.first.channels, -1)
    peaks: Array = columns.max(axis=(0, 2))
    return peaks


def _scale(pair: Pair, factors: Array) -> None:
    pair.first.set_rows(pair.first.rows() / factors[:, None])
    bias = pair.first.bias
    if bias is not None:
        values = numpy_helper.to_array(bias) / factors
        bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias.name))
    rows = pair.second.rows()
    if pair.depthwise:
        scaled = rows * np.repeat(factors, len(rows) // len(factors))[:, None]
    else:
        scaled = rows.reshape(len(rows), len(factors), -1) * factors[None, :, None]
    pair.second.set_rows(scaled)


def _pairs(graph: onnx.GraphProto, clips: Clips) -> Iterator[Pair]:
    """Yield the pairs of the main graph, in order."""
    layers = {layer.node.output[0]: layer for layer in layers_of(graph)}
    by_source = {layer.source: layer for layer in layers.values()}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for first in layers.values():
        if first.node.op_type == "MatMul" or not first.has_own_bias(graph):
            continue
        name, clip = first.name, None
        between = readers.get(name, [])
        if len(between) == 1 and name not in outputs and between[0].op_type in {*_HOMOGENEOUS, "Clip"}:
            clip = between[0] if between[0].op_type == "Clip" else None
            name = between[0].output[0]
        second = by_source.get(name)
        if second is None or name in outputs or len(readers.get(name, [])) != 1:
            continue
        if clip is not None and (clips == "skip" or _limits(graph, clip)[0] != 0):
            continue
        pair = Pair(first, second, clip)
        if _fits(pair):
            yield pair


def _fits(pair: Pair) -> bool:
    """Tell whether each channel of the first layer is read as one channel by the second."""
    if pair.depthwise:
        return True
    second = pair.second
    values = int(np.prod(second.weight.dims)) // second.channels
    kernel = int(np.prod(second.weight.dims[2:])) if second.node.op_type == "Conv" else 1
    plain = not attribute(second.node, "transA", 0)
    return second.groups == 1 and plain and values == pair.first.channels * kernel


def _limits(graph: onnx.GraphProto, clip: onnx.NodeProto) -> tuple[float, float]:
    """Return what a Clip lets through; its limits are inputs since opset 11, which every graph here has."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    ends = []
    for place, free in ((1, -np.inf), (2, np.inf)):
        name = clip.input[place] if len(clip.input) > place else ""
        tensor = stored.get(name)
        known = float(numpy_helper.to_array(tensor)) if tensor is not None else float("nan")
        ends.append(known if name else float(free))
    return ends[0], ends[1]


def _rewrite_clip(graph: onnx.GraphProto, pair: Pair, factors: Array, clips: Clips) -> None:
    """Make the clip between a pair, in place, what it has to be with its channels divided by `factors`."""
    clip = pair.clip
    assert clip is not None, "only pairs with a clip come here"
    limit, source, target = _limits(graph, clip)[1], clip.input[0], clip.output[0]
    place = list(graph.node).index(clip)
    graph.node.remove(clip)
    if clips == "drop" or np.isinf(limit):
        graph.node.insert(place, helper.make_node("Relu", [source], [target], name=clip.name))
        return
    shape = (-1, *([1] * (len(pair.first.weight.dims) - 2)))
    limits = (limit / factors).astype(np.float32).reshape(shape)
    graph.initializer.append(numpy_helper.from_array(limits, f"{target}__limits"))
    graph.node.insert(place, helper.make_node("Relu", [source], [f"{target}__positive"], name=clip.name))
    inputs = [f"{target}__positive", f"{target}__limits"]
    graph.node.insert(place + 1, helper.make_node("Min", inputs, [target], name=f"{clip.name}_limits"))
