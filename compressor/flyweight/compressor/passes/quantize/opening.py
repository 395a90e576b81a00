"""How every 8-bit pass begins: the graph prepared, checked, and the width of its weights settled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from flyweight.compressor.passes.quantize.preparation import prepare
from flyweight.compressor.passes.quantize.suitability import check_can_quantize
from flyweight.compressor.processor import this_processor

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class Opening:
    """A graph that can be quantized.

    Attributes:
        graph: prepared; the pass's own to change.
        reduced: whether weights take 7 bits, so that sums of two products cannot saturate in 16 bits.
    """

    graph: onnx.ModelProto
    reduced: bool

    @property
    def largest(self) -> int:
        """The largest magnitude of a quantized weight: 127, or 64 in 7 bits, as onnxruntime has it."""
        return 64 if self.reduced else 127

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report says about the width of the weights."""
        if not self.reduced:
            return ()
        return ("Weights use 7 bits, because products of bytes can saturate on this processor.",)


def open_graph(
    model: "Model",
    context: "Context",
    *,
    reduce_range: bool | None,
    rewrite: Callable[[onnx.ModelProto], object] | None = None,
) -> Opening:
    """Return the model's graph ready for a quantizer.

    Args:
        model: an ONNX model.
        context: gives files to work in.
        reduce_range: weights in 7 bits; None decides by the processor this runs on.
        rewrite: changes the prepared graph in place before it is checked.

    Raises:
        ModelError: the model cannot be read.
        PassError: it is quantized already, or has no finite fp32 weights to quantize.
    """
    graph = prepare(model.onnx_path(), context.new_path)
    if rewrite is not None:
        rewrite(graph)
    check_can_quantize(graph)
    reduced = not this_processor().multiplies_bytes_exactly if reduce_range is None else reduce_range
    return Opening(graph, reduced)
