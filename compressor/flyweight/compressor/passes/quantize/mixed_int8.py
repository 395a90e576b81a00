"""Mixed precision: int8 where it costs little, floating point where it was measured to hurt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.pooling import pool_globally
from flyweight.compressor.passes.quantize.bias_correction import correct_biases, correctable, measure_shifts
from flyweight.compressor.passes.quantize.calibration import Method, Range, check_method, observe_ranges
from flyweight.compressor.passes.quantize.layers import Layer, layers_of
from flyweight.compressor.passes.quantize.opening import open_graph
from flyweight.compressor.passes.quantize.placement import Placement, place, quantized_operators
from flyweight.compressor.passes.quantize.sensitivity import (
    fewest_to_spare,
    measure_sensitivity,
    measure_sqnr,
    order_to_spare,
)
from flyweight.compressor.passes.quantize.stem import widen_stems
from flyweight.compressor.passes.quantize.suitability import activations
from flyweight.compressor.passes.quantize.switchboard import Switchboard, build_switchboard
from flyweight.compressor.passes.quantize.two_precisions import multiply_dynamically
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Spared = Literal["float", "dynamic"]

# Bytes of an activation that is converted at a border, as multiplications that would take as long.
_MULTIPLICATIONS_A_VALUE: Final = 64


@dataclass(frozen=True, slots=True)
class MixedInt8(Pass):
    """Quantizes as static-int8 does, and leaves the most sensitive layers in floating point.

    The damage of a layer is the noise in the model's outputs when that layer alone is quantized, measured on
    calibration data against the fp32 answers: SQNR_i = 10 log10(sum y^2 / sum (y_i - y)^2). Layers are given
    up in the order of noise removed for time lost, conversions at the borders of a float island included,
    until all others together reach the target (Z. Dong et al., "HAWQ-V2", NeurIPS 2020, rank layers by
    curvature in the same way; here the damage itself is measured).

    Attributes:
        target_db: the signal to noise that the outputs must reach; 20 dB is an error of a tenth, where of a
            thousand classes about 98 in 100 first answers stay.
        most_spared: at most this share of the layers may stay in floating point; more would be no int8 model.
        spared: what becomes of layers given up: "float", or "dynamic", where products of matrices take their
            ranges in each run instead, which suits transformers. Convolutions stay in floating point.
        calibration: how ranges are chosen, as in static-int8.
        percentile: the share of values kept by `percentile`, in percent.
        reduce_range: weights in 7 bits; None decides by the processor, as in static-int8.
        exclude: nodes by name, or operators by type, that stay in floating point in any case.
    """

    name: ClassVar[str] = "mixed-int8"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    target_db: float = 20.0
    most_spared: float = 0.5
    spared: Spared = "float"
    calibration: Method = "minmax"
    percentile: float = 99.999
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        check_method(self.calibration, self.percentile)
        if self.spared not in {"float", "dynamic"}:
            raise RecipeError(f"spared is float or dynamic, not {self.spared!r}.")
        if not 0 < self.target_db < 150:
            raise RecipeError(f"target_db is above 0 and below 150, not {self.target_db}.")
        if not 0 <= self.most_spared <= 1:
            raise RecipeError(f"most_spared is from 0 to 1, not {self.most_spared}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model in two precisions.

        Raises:
            PassError: there is nothing to quantize, the target is not reached, or onnxruntime cannot handle
                the graph.
        """
        with quiet_tools():
            opening = open_graph(model, context, reduce_range=self.reduce_range, rewrite=pool_globally)
            graph = opening.graph
            placement = Placement(quantized_operators(self.exclude), self.exclude, reduced=opening.reduced)
            names = activations(graph, placement.operators)
            ranges = observe_ranges(graph, names, self.calibration, self.percentile, context)
            layers = [layer for layer in layers_of(graph.graph, self.exclude) if layer.source in ranges]
            if not layers:
                raise PassError("No layer's weights are constants of its own: nothing can be mixed.")
            spared, reached = self._spare(graph, layers, ranges, placement, context)
            excluded = {layer.node.name for layer in layers if layer.name in spared}
            placement = replace(placement, exclude=(*self.exclude, *sorted(excluded)))
            correct_biases(graph, graph, ranges, placement, context)
            quantized = place(graph, ranges, placement)
            dynamic = (
                multiply_dynamically(quantized, excluded, opening.largest) if self.spared == "dynamic" else 0
            )
            widen_stems(quantized)
            path = save_graph(quantized, context.new_path("mixed-int8"))
        return PassResult(
            Model(path=path),
            changed=True,
            notes=(*_notes(layers, spared, reached, dynamic), *opening.notes),
        )

    def _spare(
        self,
        graph: onnx.ModelProto,
        layers: Sequence[Layer],
        ranges: Mapping[str, Range],
        placement: Placement,
        context: "Context",
    ) -> tuple[set[str], float]:
        """Return the layers to leave in floating point, and the signal to noise that the others reach."""
        shifts = measure_shifts(graph, correctable(graph, ranges, placement), ranges, placement, context)
        board = build_switchboard(graph, layers, ranges, placement, shifts, context)
        if not board.outputs:
            raise PassError("The model has no output of floats to measure sensitivity on; use static-int8.")
        expected = list(board.answers([]))
        sensitivity = measure_sensitivity(board, expected, context)
        order = order_to_spare(sensitivity, _costs(layers, board), _neighbours(graph, layers))
        most = int(len(layers) * self.most_spared)

        def reached(count: int) -> float:
            context.check_time()
            return measure_sqnr(board, expected, order[count:])

        count = fewest_to_spare(most, reached, self.target_db)
        value = reached(count)
        if value < self.target_db:
            raise PassError(
                f"With {count} of {len(layers)} layers in floating point the outputs reach {value:.1f} dB "
                f"of the {self.target_db:g} asked for; allow more with most_spared, or lower target_db."
            )
        return set(order[:count]), value


def _notes(layers: Sequence[Layer], spared: set[str], reached: float, dynamic: int) -> list[str]:
    told = f"{len(layers) - len(spared)} of {len(layers)} layers in int8; the outputs keep {reached:.1f} dB "
    notes = [told + "of signal to noise on calibration data."]
    if spared:
        named = [layer.node.name or layer.name for layer in layers if layer.name in spared]
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        notes.append(f"In floating point, as the most sensitive: {', '.join(named[:8])}{more}.")
    if dynamic:
        notes.append(f"{dynamic} of these multiply in int8 with ranges taken in each run.")
    return notes


def _costs(layers: Sequence[Layer], board: Switchboard) -> dict[str, float]:
    """Return what each layer takes longer in floating point, in multiplications of its weights.

    Relative to a run of one position: weights are used as often as there are positions, and so are values
    converted, so that positions, which are unknown where shapes are, cancel.
    """
    return {
        layer.name: float(np.prod(layer.weight.dims))
        + _MULTIPLICATIONS_A_VALUE * (layer.channels + np.prod(layer.weight.dims) / layer.channels)
        for layer in layers
        if layer.name in board.layers
    }


def _neighbours(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, list[str]]:
    """Return, for each layer, those that its activations come from or go to, through at most one operator."""
    makers = {name: node for node in model.graph.node for name in node.output}
    known = {layer.name for layer in layers}
    found: dict[str, list[str]] = {layer.name: [] for layer in layers}
    for layer in layers:
        maker = makers.get(layer.source)
        if maker is not None and maker.output[0] not in known and maker.input:
            maker = makers.get(maker.input[0])
        if maker is not None and maker.output[0] in known:
            found[layer.name].append(maker.output[0])
            found[maker.output[0]].append(layer.name)
    return found
