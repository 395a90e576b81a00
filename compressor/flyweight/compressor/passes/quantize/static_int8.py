"""Static 8-bit quantization: ranges are learned beforehand, and stretches of the graph run in integers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.calibration import Method, Range, float32_range, observe_ranges
from flyweight.compressor.passes.quantize.preparation import prepare
from flyweight.compressor.passes.quantize.suitability import WEIGHTED, activations, check_can_quantize
from flyweight.compressor.processor import this_processor
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
        calibration: how ranges are chosen: minmax, percentile or entropy.
        percentile: the share of values kept by `percentile`, in percent.
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
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.calibration not in {"minmax", "percentile", "entropy"}:
            raise RecipeError(f"calibration is minmax, percentile or entropy, not {self.calibration!r}.")
        if not 50 < self.percentile <= 100:
            raise RecipeError(f"percentile is above 50 and at most 100, not {self.percentile}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the quantized model.

        Raises:
            PassError: there is nothing to quantize, the model is quantized already, or onnxruntime cannot
                handle it.
        """
        with quiet_tools():
            graph = prepare(model.onnx_path(), context.new_path)
            check_can_quantize(graph)
            operators = _operators(self.exclude)
            names = activations(graph, operators)
            ranges = observe_ranges(graph, names, self.calibration, self.percentile, context)
            reduced = self.reduce_range
            if reduced is None:
                reduced = not this_processor().multiplies_bytes_exactly
            quantized = run_foreign(
                lambda: self._quantized(graph, operators, ranges, reduced=reduced),
                lambda reason: PassError(f"onnxruntime cannot quantize this graph statically ({reason})."),
            )
            path = save_graph(quantized, context.new_path("static-int8"))
        layers = sum(node.op_type in WEIGHTED for node in graph.graph.node)
        samples = context.calibration.samples
        notes = [f"{layers} layers in int8, calibrated by {self.calibration} on {samples} samples."]
        if reduced:
            notes.append("Weights use 7 bits, because products of bytes can saturate on this processor.")
        return PassResult(Model(path=path), changed=True, notes=tuple(notes))

    def _quantized(
        self, graph: onnx.ModelProto, operators: list[str], ranges: dict[str, Range], *, reduced: bool
    ) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        quantizer = QDQQuantizer(
            graph,
            self.per_channel,
            reduced,
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, {name: float32_range(ranges[name]) for name in ranges}),
            [],
            [node.name for node in graph.graph.node if node.name in self.exclude],
            operators,
            {"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        # The quantizer appends what it adds; the format wants every node after those it reads from.
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        return quantized


def _operators(exclude: tuple[str, ...]) -> list[str]:
    """Return what onnxruntime's placement quantizes by default, less what the user excludes."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - set(exclude))
