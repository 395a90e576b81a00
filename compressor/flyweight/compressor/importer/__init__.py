"""From an ONNX graph to a torch module made of torch's own layers, without the model's source code."""

from flyweight.compressor.importer.importing import import_onnx

__all__ = ["import_onnx"]
