"""Weights and activations of 1 to 8 bits in a graph that any runtime can run: what would so few bits cost?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.noise import signal_to_noise
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.calibration import Range, observe_ranges
from flyweight.compressor.passes.quantize.grids import (
    MOST_BITS,
    Codes,
    Spacing,
    Steps,
    codebook,
    power_of_two,
    uniform,
)
from flyweight.compressor.passes.quantize.layers import Layer, layers_of
from flyweight.compressor.passes.quantize.opening import open_graph

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Array = NDArray[Any]

# With fewer values than a codebook of 8 bits has, the codes and the table take more room than the weight.
_SMALLEST_WEIGHT: Final = 256


@dataclass(frozen=True, slots=True)
class Simulate(Pass):
    """Puts weights, and activations if asked, on grids of 1 to 8 bits, exactly as integers would compute.

    Weights are stored as their codes and widened in the graph: (q - zero) * scale on a uniform grid (Jacob et
    al. 2018, equation 1), a look-up in a table on the others. Activations are clipped to their range on the
    calibration data, quantized and dequantized, so that they only take the 2**bits values an integer machine
    would see: what the graph answers is what integer arithmetic would, up to how fp32 rounds sums.
    onnxruntime has kernels for 8 bits alone, so fewer are not faster; they are smaller once encoded, and
    tell what hardware with fewer bits would cost.

    Attributes:
        bits: of a weight, 1 to 8.
        activation_bits: of the layers' inputs, 2 to 8; 0 leaves them in fp32.
        spacing: uniform, power-of-two (at least 2 bits) or codebook; see grids.py.
        symmetric: whether a uniform grid of weights lies around zero.
        per_channel: a uniform grid for each output channel, or one for the layer; tables are for the layer.
        exclude: layers by node name, or by operator, that stay as they are.
    """

    name: ClassVar[str] = "simulate"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    bits: int = 4
    activation_bits: int = 0
    spacing: Spacing = Spacing.UNIFORM
    symmetric: bool = True
    per_channel: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        least = 2 if self.spacing is Spacing.POWER_OF_TWO else 1
        if not least <= self.bits <= MOST_BITS:
            raise RecipeError(f"bits is from {least} to {MOST_BITS} on this grid, not {self.bits}.")
        if self.activation_bits != 0 and not 2 <= self.activation_bits <= MOST_BITS:
            raise RecipeError(f"activation_bits is 0, or from 2 to {MOST_BITS}, not {self.activation_bits}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model on grids.

        Raises:
            PassError: there is no weight to put on one, or the model is quantized already.
        """
        graph = open_graph(model, context, reduce_range=False).graph
        layers = [
            layer
            for layer in layers_of(graph.graph, self.exclude)
            if layer.rows().size >= _SMALLEST_WEIGHT or self.spacing is Spacing.UNIFORM
        ]
        if not layers:
            raise PassError(
                "The model has no Conv, Gemm or MatMul with a weight of its own left to quantize."
            )
        ranges = self._ranges(graph, layers, context)
        errors = []
        for done, layer in enumerate(layers):
            context.check_time()
            context.progress("simulating", done, len(layers))
            errors.append(self._quantize(graph.graph, layer))
        for source, limits in ranges.items():
            readers = [layer.node for layer in layers if layer.source == source]
            _quantize_activation(graph.graph, readers, limits, 2**self.activation_bits - 1)
        path = save_graph(graph, context.new_path("simulate"))
        worst = min(errors)
        note = (
            f"{len(layers)} layers with weights of {self.bits} bits on a {self.spacing.value} grid; "
            f"the least faithful keeps a signal-to-noise ratio of {worst:.1f} dB."
        )
        also = (f"{len(ranges)} activations of {self.activation_bits} bits.",) if ranges else ()
        return PassResult(Model(path=path), changed=True, notes=(note, *also))

    def _ranges(self, graph: onnx.ModelProto, layers: list[Layer], context: "Context") -> dict[str, Range]:
        if not self.activation_bits:
            return {}
        names = list(dict.fromkeys(layer.source for layer in layers))
        return observe_ranges(graph, names, "minmax", 100.0, context)

    def _quantize(self, graph: onnx.GraphProto, layer: Layer) -> float:
        """Put one weight on its grid and return the signal-to-noise ratio that is left, in dB."""
        rows = layer.rows()
        found: Steps | Codes
        if self.spacing is Spacing.UNIFORM:
            found = uniform(rows, self.bits, symmetric=self.symmetric, per_channel=self.per_channel)
            _store_steps(graph, layer, found, symmetric=self.symmetric)
        else:
            made = power_of_two if self.spacing is Spacing.POWER_OF_TWO else codebook
            found = made(rows, self.bits)
            _store_codes(graph, layer, found)
        return signal_to_noise(rows, found.values)


def _as_weight(layer: Layer, rows: Array) -> Array:
    """Return (channels, n) in the shape of the layer's weight."""
    shape = [length for place, length in enumerate(layer.weight.dims) if place != layer.axis]
    return np.ascontiguousarray(np.moveaxis(rows.reshape(layer.channels, *shape), 0, layer.axis))


def _store_steps(graph: onnx.GraphProto, layer: Layer, steps: Steps, *, symmetric: bool) -> None:
    kind = np.int8 if symmetric else np.uint8
    name = layer.weight.name
    scales, zeros, axis = steps.scales[:, 0], steps.zeros[:, 0].astype(kind), layer.axis
    if len(np.unique(scales)) == 1 and len(np.unique(zeros)) == 1:
        scales, zeros = scales[0], zeros[0]
    tensors = [
        numpy_helper.from_array(_as_weight(layer, steps.codes).astype(kind), f"{name}__codes"),
        numpy_helper.from_array(np.asarray(scales), f"{name}__scale"),
        numpy_helper.from_array(np.asarray(zeros), f"{name}__zero"),
    ]
    node = helper.make_node(
        "DequantizeLinear", [tensor.name for tensor in tensors], [name], name=f"{name}__widen", axis=axis
    )
    _replace(graph, layer, tensors, [node])


def _store_codes(graph: onnx.GraphProto, layer: Layer, codes: Codes) -> None:
    name = layer.weight.name
    tensors = [
        numpy_helper.from_array(_as_weight(layer, codes.places).astype(np.uint8), f"{name}__codes"),
        numpy_helper.from_array(codes.table, f"{name}__table"),
    ]
    nodes = [
        helper.make_node(
            "Cast", [f"{name}__codes"], [f"{name}__places"], name=f"{name}__cast", to=TensorProto.INT32
        ),
        helper.make_node("Gather", [f"{name}__table", f"{name}__places"], [name], name=f"{name}__look_up"),
    ]
    _replace(graph, layer, tensors, nodes)


def _replace(
    graph: onnx.GraphProto, layer: Layer, tensors: list[onnx.TensorProto], nodes: list[onnx.NodeProto]
) -> None:
    graph.initializer.remove(layer.weight)
    graph.initializer.extend(tensors)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _quantize_activation(
    graph: onnx.GraphProto, readers: list[onnx.NodeProto], limits: Range, largest: int
) -> None:
    """Let layers with one input read what `largest` + 1 evenly spaced values leave of it."""
    source = readers[0].input[0]
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = np.float32((high - low) / largest or 1.0)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, largest))
    # The clip is to codes 0 and `largest`: rounding the zero point may have moved the range by half a step.
    bounds = [(0 - float(zero)) * float(scale), (largest - float(zero)) * float(scale)]
    names = {key: f"{source}__{key}" for key in ("low", "high", "clipped", "scale", "zero", "codes", "grid")}
    values = {"low": np.float32(bounds[0]), "high": np.float32(bounds[1]), "scale": scale, "zero": zero}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), names[key]) for key, value in values.items()
    )
    grid = [names["scale"], names["zero"]]
    nodes = [
        helper.make_node("Clip", [source, names["low"], names["high"]], [names["clipped"]]),
        helper.make_node("QuantizeLinear", [names["clipped"], *grid], [names["codes"]]),
        helper.make_node("DequantizeLinear", [names["codes"], *grid], [names["grid"]]),
    ]
    outputs = {node.output[0] for node in readers}
    place = next(index for index, node in enumerate(graph.node) if node.output[0] in outputs)
    for node in readers:
        node.input[0] = names["grid"]
    for node in reversed(nodes):
        graph.node.insert(place, node)
