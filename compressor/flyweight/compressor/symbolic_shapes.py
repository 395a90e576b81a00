"""Shapes by onnxruntime's symbolic inference, which knows its own operators and shapes made from shapes."""

from typing import Any, Final

import onnx

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign

# What the tool takes by default for lengths without a bound.
_BOUNDLESS: Final = 2**31 - 1


def with_symbolic_shapes(model: onnx.ModelProto, *, partial: bool = False) -> onnx.ModelProto:
    """Return a copy of the model with the types and shapes of its tensors.

    Args:
        model: the graph.
        partial: take what was found until something is not known.

    Raises:
        ModelError: the tool cannot tell, or not of all tensors.
    """
    return run_foreign(lambda: _inferred(model, partial=partial), ModelError)


def _inferred(model: onnx.ModelProto, *, partial: bool) -> onnx.ModelProto:
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    # As its infer_shapes() does, which writes what it has into the working directory where it fails.
    tool: Any = SymbolicShapeInference(_BOUNDLESS, auto_merge=True, guess_output_rank=False, verbose=0)
    tool._preprocess(model)
    whole = False
    while tool.run_:
        whole = tool._infer_impl()
    tool._update_output_from_vi()
    if not (whole or partial):
        raise ModelError("The shapes of some tensors cannot be inferred.")
    inferred: onnx.ModelProto = tool.out_mp_
    return inferred
