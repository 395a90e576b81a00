"""Weights alone in 8 or 4 bits: activations stay in floating point."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize.blocks import multiply_by_nibbles, store_as_nibbles
from flyweight.compressor.passes.quantize.layers import Layer, layers_of
from flyweight.compressor.passes.quantize.opening import open_graph
from flyweight.compressor.passes.quantize.stored import SMALLEST_VALUES, store_as_bytes
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class WeightOnly(Pass):
    """Stores weights in 8 bits with a scale per channel, or in 4 bits with a scale per block.

    In 4 bits a weight w of a block is s * q, q from -7 to 7, s = max|w| / 7 over `block` neighbours of one
    output channel (E. Frantar et al., "GPTQ", ICLR 2023, call it grouping; rounding is to the nearest).

    Products of matrices in 4 bits run in onnxruntime's MatMulNBits. Its kernel for accuracy_level 4
    quantizes activations by blocks to int8; others were measured at a twentieth of its speed. Everything else
    is widened when the model is loaded and computes in fp32. This is for the size of the file: in time,
    dynamic int8 was faster than 4 bits at every batch tried.

    Attributes:
        bits: 8 or 4.
        block: weights that share a scale, in 4 bits: a power of two from 16 to 256.
        exclude: nodes by name, or operators by type, whose weights stay as they are.
    """

    name: ClassVar[str] = "weight-only"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    bits: Literal[4, 8] = 8
    block: int = 32
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.bits not in {4, 8}:
            raise RecipeError(f"bits is 4 or 8, not {self.bits}.")
        if self.block not in {16, 32, 64, 128, 256}:
            raise RecipeError(f"block is 16, 32, 64, 128 or 256, not {self.block}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model with smaller weights.

        Raises:
            PassError: it has no fp32 weights to store, or is quantized already.
        """
        with quiet_tools():
            graph = open_graph(model, context, reduce_range=False).graph
            layers = [layer for layer in layers_of(graph.graph, self.exclude) if _is_large(layer)]
            if not layers:
                raise PassError(
                    f"No layer of the main graph has {SMALLEST_VALUES} constant weights of its own: "
                    "nothing to store."
                )
            notes = self._in_bytes(graph, layers) if self.bits == 8 else self._in_nibbles(graph, layers)
            path = save_graph(graph, context.new_path(f"weight-only-{self.bits}"))
        return PassResult(Model(path=path), changed=True, notes=tuple(notes))

    @staticmethod
    def _in_bytes(model: onnx.ModelProto, layers: Collection[Layer]) -> list[str]:
        for axis in {layer.axis for layer in layers}:
            store_as_bytes(model.graph, [layer.weight.name for layer in layers if layer.axis == axis], axis)
        return [f"The weights of {len(layers)} layers are stored as int8 and widened at load."]

    def _in_nibbles(self, model: onnx.ModelProto, layers: Collection[Layer]) -> list[str]:
        multiplied = stored = 0
        for layer in layers:
            if layer.node.op_type == "MatMul":
                multiply_by_nibbles(model, layer, self.block)
                multiplied += 1
            else:
                store_as_nibbles(model.graph, layer, self.block)
                stored += 1
        notes = []
        if multiplied:
            notes.append(f"{multiplied} products of matrices run with weights of 4 bits.")
        if stored:
            notes.append(f"The weights of {stored} layers are stored in 4 bits and widened at load.")
        return notes


def _is_large(layer: Layer) -> bool:
    return len(layer.rows().ravel()) >= SMALLEST_VALUES
