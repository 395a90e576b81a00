"""The rewriting that fuse-graph does, as a function of a graph that is prepared already."""

import onnx
from onnx import version_converter

from flyweight.compressor.errors import CompressorError, PassError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import drop_initializer_inputs, onnx_opset
from flyweight.compressor.passes.layout.attention import IR_VERSION, OPSET, find_attentions, fuse_attentions
from flyweight.compressor.passes.layout.folding import fold_known
from flyweight.compressor.passes.layout.residual import keep_sums_apart
from flyweight.compressor.passes.layout.view import View


def fuse(
    model: onnx.ModelProto, *, attention: bool = True, residual: bool = True, fold: bool = True
) -> tuple[onnx.ModelProto, list[str]]:
    """Return a prepared graph written otherwise, and sentences that say so; without any, it is as it was."""
    fused, notes = onnx.ModelProto(), list[str]()
    fused.CopyFrom(model)
    folded = fold_known(fused) if fold else 0
    if folded:
        notes.append(f"{folded} results that are the same in every run, or needless copies, folded.")
    if attention and any(True for _ in find_attentions(View(fused.graph))):
        try:
            raised = _with_attention(fused)
            count = fuse_attentions(raised)
        except CompressorError as error:
            notes.append(str(error))
        else:
            fused = raised
            notes.append(f"{count} attentions fused into one operator each.")
    apart = keep_sums_apart(fused) if residual else 0
    if apart:
        notes.append(f"{apart} residual sums kept apart from the normalisation after them.")
    return fused, notes


def _with_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in an opset that has the operator."""
    if onnx_opset(model) >= OPSET:
        return model
    converted = run_foreign(
        lambda: version_converter.convert_version(model, OPSET),
        lambda reason: PassError(
            f"Attention was not fused: the opset cannot be raised to {OPSET} ({reason})."
        ),
    )
    drop_initializer_inputs(converted)
    converted.ir_version = max(converted.ir_version, IR_VERSION)
    return converted
