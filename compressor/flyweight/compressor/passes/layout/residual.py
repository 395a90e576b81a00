"""Keeping a sum and the normalisation after it apart, where the kernel for both is slower than the two.

While it builds a session, onnxruntime puts Add and LayerNormalization together in SkipLayerNormalization. On
x86 that kernel was measured at four to seven times the time of the two (12 of them took a quarter of a
quantized MiniLM). It looks for Add; Sum of two tensors is the same and is left alone.
"""

import onnx

from flyweight.compressor.passes.layout.view import View


def keep_sums_apart(model: onnx.ModelProto) -> int:
    """Write, in place, Add as Sum where a layer normalisation reads it and neither term is a constant."""
    view, changed = View(model.graph), 0
    for node in model.graph.node:
        if node.op_type != "Add" or node.domain or not view.is_float(node.output[0]):
            continue
        if any(name in view.stored for name in node.input):
            continue
        readers = {reader.op_type for reader in view.consumers(node.output[0])}
        # A normalisation that an exporter wrote out begins with the mean and the difference from it.
        if "LayerNormalization" in readers or readers >= {"ReduceMean", "Sub"}:
            node.op_type = "Sum"
            changed += 1
    return changed
