"""Bringing a graph into the form that quantizers understand, without trusting that any single step works.

Weights in initializers, constants folded, batch normalisation in the convolution before it, shapes of tensors
known, opset 13 or later (the first with scales per channel).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx
import onnxruntime as ort
from onnx import shape_inference, version_converter

from flyweight.compressor.errors import CompressorError, ModelError, PassError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import (
    all_graphs,
    drop_initializer_inputs,
    external_files,
    lift_constants,
    load_graph,
    onnx_opset,
    save_graph,
)
from flyweight.compressor.passes.quantize.widening import widen
from flyweight.compressor.sessions import SessionSettings, session_options
from flyweight.compressor.symbolic_shapes import with_symbolic_shapes

# QuantizeLinear has an axis, for scales per channel, since opset 13. 17 is the first with LayerNormalization.
_OLDEST_OPSET: Final = 13
_TARGET_OPSET: Final = 17
# The IR version of opset 15 to 18; with an older one checkers refuse newer operators.
_OLDEST_IR: Final = 8


def prepare(path: Path, new_path: Callable[[str], Path]) -> onnx.ModelProto:
    """Return the model at `path` in a form that can be quantized; `new_path` gives files to work in.

    Raises:
        ModelError: the model cannot be read.
        PassError: its opset is too old and cannot be raised.
    """
    source = load_graph(path)
    changed = drop_initializer_inputs(source)
    changed = widen(source) or changed
    if onnx_opset(source) < _OLDEST_OPSET:
        source = _with_later_opset(source)
        changed = True
    if changed:
        path = save_graph(source, new_path("input"))
    model = _optimised(path, new_path("prepare")) or source
    lift_constants(model)
    _drop_initializer_shapes(model)
    _drop_unused_domains(model)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    return with_shapes(model)


def _with_later_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    converted = run_foreign(
        lambda: version_converter.convert_version(model, _TARGET_OPSET),
        lambda reason: PassError(
            f"The model's opset {onnx_opset(model)} is too old and cannot be converted ({reason}); "
            f"export it with opset {_OLDEST_OPSET} or later."
        ),
    )
    # The converter works on a form of its own in which constants are nodes and initializers are inputs.
    drop_initializer_inputs(converted)
    return converted


def _optimised(path: Path, target: Path) -> onnx.ModelProto | None:
    """Return the graph after onnxruntime's basic rewriting (standard operators only), or None if it fails."""
    options = session_options(SessionSettings())
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if external_files(path, load_graph(path, weights=False)):
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", target.name + ".data"
        )
    try:
        run_foreign(
            lambda: ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]), ModelError
        )
        return load_graph(target)
    except CompressorError:
        return None


def _drop_initializer_shapes(model: onnx.ModelProto) -> None:
    """Forget the stated shapes of initializers, which go stale when a tool transposes one."""
    stored = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.value_info if value.name not in stored]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Forget the operator sets that onnxruntime's optimiser declares and the graph does not use."""
    used = {node.domain for graph in all_graphs(model.graph) for node in graph.node} | {""}
    used |= {node.domain for function in model.functions for node in function.node}
    used |= {function.domain for function in model.functions}
    kept = [
        entry for entry in model.opset_import if ("" if entry.domain == "ai.onnx" else entry.domain) in used
    ]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with inferred types and shapes, as far as any of two tools can tell."""
    try:
        model = run_foreign(lambda: shape_inference.infer_shapes(model, data_prop=True), ModelError)
    except CompressorError:
        return model
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    if all(name in known for node in model.graph.node for name in node.output if name):
        return model
    try:
        return with_symbolic_shapes(model)
    except CompressorError:
        return model
