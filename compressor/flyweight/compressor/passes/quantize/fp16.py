"""Half precision as a storage format: half the file, the same arithmetic."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import drop_initializer_inputs, lift_constants, load_graph, save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.stored import store_as_half

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class Fp16Storage(Pass):
    """Stores weights as IEEE 754 binary16 and widens them to fp32 when the model is loaded.

    onnxruntime's CPU kernels compute in fp32 whatever the file says, so this saves space on disk and on the
    wire, neither time nor, once loaded, memory. A weight w becomes w * (1 + d) with |d| <= 2**-11 (round to
    nearest).
    """

    name: ClassVar[str] = "fp16"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model with its weights in fp16.

        Raises:
            PassError: no weight is fp32 and worth storing.
        """
        graph = load_graph(model.onnx_path())
        lift_constants(graph)
        drop_initializer_inputs(graph)
        stored, skipped = store_as_half(graph)
        if not stored:
            raise PassError("The model has no fp32 weights that fp16 could hold: nothing to store.")
        notes = [f"{stored} tensors stored as fp16; arithmetic, latency and memory stay those of fp32."]
        if skipped:
            notes.append(f"{skipped} tensors stayed fp32: their values exceed fp16's range.")
        return PassResult(
            Model(path=save_graph(graph, context.new_path("fp16"))), changed=True, notes=tuple(notes)
        )
