"""Where pairs of QuantizeLinear and DequantizeLinear go, so that onnxruntime runs long stretches in integers.

The places are those of onnxruntime's own quantizer, which knows what its kernels take. What it is given was
rewritten before (pooling.py), and what it leaves is mended after (stem.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.passes.quantize.calibration import Range, float32_range


@dataclass(frozen=True, slots=True)
class Placement:
    """How a graph is quantized.

    Attributes:
        operators: quantized, by type.
        exclude: nodes by name that stay in floating point.
        per_channel: one scale for each output channel of a weight.
        reduced: weights in 7 bits.
        symmetric: the zero of signed activations is 128.
    """

    operators: tuple[str, ...]
    exclude: Collection[str] = ()
    per_channel: bool = True
    reduced: bool = False
    symmetric: bool = False


def quantized_operators(exclude: Collection[str]) -> tuple[str, ...]:
    """Return what onnxruntime's placement quantizes by default, less the operators in `exclude`."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return tuple(sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - set(exclude)))


def place(model: onnx.ModelProto, ranges: Mapping[str, Range], placement: Placement) -> onnx.ModelProto:
    """Return the model with its weights in signed bytes and its activations in unsigned ones.

    Raises:
        PassError: onnxruntime's quantizer cannot handle the graph.
    """
    source = onnx.ModelProto()
    source.CopyFrom(model)
    return run_foreign(
        lambda: _placed(source, ranges, placement),
        lambda reason: PassError(f"onnxruntime cannot quantize this graph statically ({reason})."),
    )


def _placed(model: onnx.ModelProto, ranges: Mapping[str, Range], placement: Placement) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    excluded = set(placement.exclude)
    quantizer = QDQQuantizer(
        model,
        placement.per_channel,
        placement.reduced,
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, {name: float32_range(ranges[name]) for name in ranges}),
        [],
        [node.name for node in model.graph.node if node.name in excluded],
        list(placement.operators),
        {"ActivationSymmetric": placement.symmetric, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    # The quantizer appends what it adds; the format wants every node after those it reads from.
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
