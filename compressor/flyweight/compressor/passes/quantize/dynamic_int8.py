"""Dynamic 8-bit quantization: products in bytes, with activation ranges taken anew in every run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.preparation import prepare
from flyweight.compressor.passes.quantize.stored import store_as_bytes
from flyweight.compressor.passes.quantize.suitability import check_can_quantize
from flyweight.compressor.processor import this_processor
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

# onnxruntime's quantizer turns Gemm into MatMul and Add first. LSTM is left out: quantized in this way a
# recurrent network was seen to fall from 98 to 2 percent recall.
_OPERATORS: Final = ("MatMul", "Gemm", "Gather", "Attention")
_CONVOLUTIONS: Final = ("keep", "store", "integer")


@dataclass(frozen=True, slots=True)
class DynamicInt8(Pass):
    """Multiplies matrices in bytes, choosing each activation's range when it is there; needs no data.

    y = s_x * s_w * (q_x - z_x) q_w, with s_x, z_x from the range of x in this run and s_w = max|w| / 127 for
    each output channel (Jacob et al. 2018, equation 1). Best for networks of matrix products: transformers.

    onnxruntime's dynamic integer convolution was measured at a quarter of fp32's speed, so convolutions
    compute in fp32 and only store their weights as bytes, which are widened when the model is loaded.

    Attributes:
        per_channel: one scale for each output channel of a weight.
        convolutions: "store" their weights as bytes, "keep" them as they are, or compute in "integer".
        reduce_range: weights in 7 bits; None decides by the processor, as in static-int8.
        exclude: nodes by name, or operators by type, that stay in floating point.
    """

    name: ClassVar[str] = "dynamic-int8"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    per_channel: bool = True
    convolutions: str = "store"
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.convolutions not in _CONVOLUTIONS:
            raise RecipeError(f"convolutions is keep, store or integer, not {self.convolutions!r}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the quantized model.

        Raises:
            PassError: there is nothing to quantize, the model is quantized already, or onnxruntime cannot
                handle it.
        """
        with quiet_tools():
            graph = prepare(model.onnx_path(), context.new_path)
            check_can_quantize(graph)
            reduced = self.reduce_range
            if reduced is None:
                reduced = not this_processor().multiplies_bytes_exactly
            quantized = run_foreign(
                lambda: self._quantized(graph, reduced=reduced),
                lambda reason: PassError(f"onnxruntime cannot quantize this graph dynamically ({reason})."),
            )
            stored = self._store_convolutions(quantized.graph)
            integer = sum(node.op_type.endswith("Integer") for node in quantized.graph.node)
            if not integer and not stored:
                raise PassError("No layer's weights are constants of the main graph: nothing was quantized.")
            path = save_graph(quantized, context.new_path("dynamic-int8"))
        notes = []
        if integer:
            notes.append(f"{integer} layers multiply in int8 with ranges taken in each run.")
        if stored:
            notes.append(f"{stored} convolutions compute in fp32, their weights stored as int8.")
        return PassResult(Model(path=path), changed=True, notes=tuple(notes))

    def _quantized(self, graph: onnx.ModelProto, *, reduced: bool) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
        from onnxruntime.quantization.quant_utils import QuantizationMode

        operators = set(_OPERATORS) | ({"Conv"} if self.convolutions == "integer" else set())
        quantizer = ONNXQuantizer(
            graph,
            self.per_channel,
            reduced,
            QuantizationMode.IntegerOps,
            False,  # noqa: FBT003  # static: a positional parameter of onnxruntime's
            QuantType.QInt8,
            QuantType.QUInt8,
            None,
            [],
            [node.name for node in graph.graph.node if node.name in self.exclude],
            sorted(operators - set(self.exclude)),
            {"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        # The quantizer appends what it adds; the format wants every node after those it reads from.
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        return quantized

    def _store_convolutions(self, graph: onnx.GraphProto) -> int:
        if self.convolutions != "store":
            return 0
        kept = set(self.exclude)
        weights: list[str] = [
            node.input[1]
            for node in graph.node
            if node.op_type == "Conv" and not {node.name, node.op_type} & kept
        ]
        return store_as_bytes(graph, weights)
