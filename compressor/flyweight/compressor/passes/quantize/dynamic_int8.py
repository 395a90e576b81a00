"""Dynamic 8-bit quantization: products in bytes, with activation ranges taken anew in every run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import onnx

from flyweight.compressor.errors import CompressorError, PassError, RecipeError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.layout.equivalence import check_same_answers
from flyweight.compressor.passes.layout.rewriting import fuse
from flyweight.compressor.passes.quantize.opening import open_graph
from flyweight.compressor.passes.quantize.stored import store_as_bytes
from flyweight.compressor.passes.quantize.tables import store_tables
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

# onnxruntime's quantizer turns Gemm into MatMul and Add first. LSTM is left out: quantized in this way a
# recurrent network was seen to fall from 98 to 2 percent recall.
_OPERATORS: Final = ("MatMul", "Gemm")
_CONVOLUTIONS: Final = ("keep", "store", "integer")


@dataclass(frozen=True, slots=True)
class DynamicInt8(Pass):
    """Multiplies matrices in bytes, choosing each activation's range when it is there; needs no data.

    y = s_x * s_w * (q_x - z_x) q_w, with s_x, z_x from the range of x in this run and s_w = max|w| / 127 for
    each output channel (Jacob et al. 2018, equation 1). Best for networks of matrix products: transformers.

    onnxruntime's dynamic integer convolution was measured at a quarter of fp32's speed, so convolutions
    compute in fp32 and only store their weights as bytes, which are widened when the model is loaded.

    Tables of embeddings are stored as bytes with a scale for each row. The graph is first written in the
    operators whose kernels are fast beside integer products, as fuse-graph does, unless that changes answers.

    Attributes:
        per_channel: one scale for each output channel of a weight.
        convolutions: "store" their weights as bytes, "keep" them as they are, or compute in "integer".
        reduce_range: weights in 7 bits; None decides by the processor, as in static-int8.
        exclude: nodes by name, or operators by type, that stay in floating point.
        fuse: write the graph as fuse-graph does first.
    """

    name: ClassVar[str] = "dynamic-int8"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    per_channel: bool = True
    convolutions: str = "store"
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()
    fuse: bool = True

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
            opening = open_graph(model, context, reduce_range=self.reduce_range)
            graph, notes = self._written(opening.graph, model, context)
            quantized = run_foreign(
                lambda: self._quantized(graph, reduced=opening.reduced),
                lambda reason: PassError(f"onnxruntime cannot quantize this graph dynamically ({reason})."),
            )
            told = self._told(quantized.graph)
            if not told:
                raise PassError("No layer's weights are constants of the main graph: nothing was quantized.")
            path = save_graph(quantized, context.new_path("dynamic-int8"))
        return PassResult(Model(path=path), changed=True, notes=(*notes, *told, *opening.notes))

    def _written(
        self, graph: onnx.ModelProto, model: Model, context: "Context"
    ) -> tuple[onnx.ModelProto, list[str]]:
        """Return the graph to quantize, written as its kernels like it where that changes no answer."""
        if not self.fuse:
            return graph, []
        fused, notes = fuse(graph)
        if not notes:
            return graph, []
        try:
            path = save_graph(fused, context.new_path("fused"))
            check_same_answers(model.onnx_path(), path, context.calibration)
        except CompressorError as error:
            return graph, [str(error)]
        return fused, notes

    def _told(self, graph: onnx.GraphProto) -> list[str]:
        """Store what is not multiplied in integers, and return sentences about what was quantized."""
        integer = sum(node.op_type.endswith("Integer") for node in graph.node)
        convolutions = self._store_convolutions(graph)
        tables = 0 if "Gather" in self.exclude else store_tables(graph)
        notes = []
        if integer:
            notes.append(f"{integer} layers multiply in int8 with ranges taken in each run.")
        if convolutions:
            notes.append(f"{convolutions} convolutions compute in fp32, their weights stored as int8.")
        if tables:
            notes.append(f"{tables} tables of embeddings stored as int8, a scale for each row.")
        return notes

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
            {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
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
