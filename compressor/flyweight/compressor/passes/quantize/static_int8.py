"""Static 8-bit quantization: ranges are learned beforehand, and stretches of the graph run in integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.pooling import pool_globally
from flyweight.compressor.passes.quantize.adaround import Rounding, learn_rounding
from flyweight.compressor.passes.quantize.bias_correction import correct_biases
from flyweight.compressor.passes.quantize.calibration import (
    Method,
    Range,
    check_method,
    observe_ranges,
    symmetric,
)
from flyweight.compressor.passes.quantize.opening import open_graph
from flyweight.compressor.passes.quantize.placement import Placement, place, quantized_operators
from flyweight.compressor.passes.quantize.stem import widen_stems
from flyweight.compressor.passes.quantize.suitability import activations, weighted_nodes
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class StaticInt8(Pass):
    """Stores weights as signed and activations as unsigned bytes, with ranges from the calibration data.

    x ~ scale * (q - zero), q = clip(round(x / scale) + zero), scale = (high - low) / 255 for activations and
    max|w| / 127 with zero = 0 for weights (B. Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", CVPR 2018, equation 1). Written as QuantizeLinear and
    DequantizeLinear pairs, from which onnxruntime makes integer kernels; U8 by S8 is the fast pair on x86.

    Attributes:
        per_channel: one scale for each output channel of a weight instead of one for all.
        calibration: how ranges are chosen: minmax, percentile, entropy or mse (histogram.py).
        percentile: the share of values kept by `percentile`, in percent.
        symmetric: ranges of signed activations are symmetric about zero. Needed where a runtime has no zero
            points; onnxruntime's kernels take either at the same speed, so the tighter is the default.
        bias_correction: shift biases by what quantization shifts each channel's mean (bias_correction.py).
        rounding: of weights: to the nearest, or learned (adaround.py), which takes some seconds more.
        reduce_range: weights in 7 bits, so that products cannot saturate on processors without VNNI; None
            decides by the processor this runs on.
        exclude: nodes by name, or operators by type, that stay in floating point.
    """

    name: ClassVar[str] = "static-int8"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    per_channel: bool = True
    calibration: Method = "minmax"
    percentile: float = 99.999
    symmetric: bool = False
    bias_correction: bool = True
    rounding: Rounding = "nearest"
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        check_method(self.calibration, self.percentile)
        if self.rounding not in {"nearest", "adaround"}:
            raise RecipeError(f"rounding is nearest or adaround, not {self.rounding!r}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the quantized model.

        Raises:
            PassError: there is nothing to quantize, the model is quantized already, its weights are not
                finite, or onnxruntime cannot handle it.
        """
        with quiet_tools():
            opening = open_graph(model, context, reduce_range=self.reduce_range, rewrite=pool_globally)
            graph = opening.graph
            operators = quantized_operators(self.exclude)
            layers = weighted_nodes(graph, self.exclude)
            if not layers:
                raise PassError("Every layer with weights is excluded: there is nothing left to quantize.")
            ranges = observe_ranges(
                graph, activations(graph, operators), self.calibration, self.percentile, context
            )
            if self.symmetric:
                ranges = symmetric(ranges)
            placement = Placement(operators, self.exclude, self.per_channel, opening.reduced, self.symmetric)
            notes = self._improve(graph, ranges, placement, context)
            quantized = place(graph, ranges, placement)
            notes += widen_stems(quantized)
            path = save_graph(quantized, context.new_path("static-int8"))
        told = f"{len(layers)} layers in int8, calibrated by {self.calibration} on "
        told += f"{context.calibration.samples} samples."
        return PassResult(Model(path=path), changed=True, notes=(told, *notes, *opening.notes))

    def _improve(
        self, graph: onnx.ModelProto, ranges: Mapping[str, Range], placement: Placement, context: "Context"
    ) -> list[str]:
        """Round weights and shift biases as asked, in place, and return sentences about it."""
        notes, original = [], onnx.ModelProto()
        original.CopyFrom(graph)
        if self.rounding == "adaround":
            rounded, gain = learn_rounding(graph, ranges, placement, context, centred=self.bias_correction)
            notes.append(f"Rounding was learned for {rounded} layers: {gain:.0%} less squared error in each.")
        if self.bias_correction:
            corrected = correct_biases(graph, original, ranges, placement, context)
            if corrected:
                notes.append(f"The biases of {corrected} layers were corrected for the shift of their means.")
        return notes
