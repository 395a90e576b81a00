"""Passes that change how a graph is written, not what it computes: what onnxruntime's kernels like."""
