"""Weights stored in fewer bits and widened when the model is loaded.

The widening is ordinary operators on constants, which onnxruntime folds while it builds the session: the file
is smaller, and what runs is the same graph in fp32.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.onnx_model import all_graphs

Array = NDArray[Any]

# Smaller tensors gain less than the nodes that widen them cost.
SMALLEST_VALUES: Final = 64
_LARGEST_HALF: Final = 65504.0
# Below this a scale is no normal float32, and dividing by it loses everything or overflows.
_SMALLEST_RANGE: Final = 127 * float(np.finfo(np.float32).tiny)


def store_as_half(model: onnx.ModelProto) -> tuple[int, int]:
    """Store fp32 initializers as fp16, in place; return how many, and how many did not fit fp16's range."""
    stored = skipped = 0
    for graph in all_graphs(model.graph):
        for tensor in [t for t in graph.initializer if _is_large_float(t)]:
            values = numpy_helper.to_array(tensor)
            if not np.isfinite(values).all() or float(np.abs(values).max()) > _LARGEST_HALF:
                skipped += 1
                continue
            _replace(graph, tensor, _half_parts)
            stored += 1
    return stored, skipped


def store_as_bytes(graph: onnx.GraphProto, names: Iterable[str], axis: int = 0) -> int:
    """Store the named fp32 initializers as signed bytes with a scale per index of `axis`; return how many."""
    wanted, stored = set(names), 0
    for tensor in [t for t in graph.initializer if t.name in wanted and _is_large_float(t)]:
        if not np.isfinite(numpy_helper.to_array(tensor)).all():
            continue
        _replace(graph, tensor, lambda name, values: _byte_parts(name, values, axis))
        stored += 1
    return stored


def quantize_symmetrically(values: Array, axis: int) -> tuple[Array, Array]:
    """Return signed bytes q and scales s, one per index of `axis`, with |values - q * s| <= s / 2.

    s = max|values| / 127 over all other axes (Jacob et al. 2018, equation 1, zero = 0), 1 where all are as
    good as zero.
    """
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > _SMALLEST_RANGE, largest / 127, 1).astype(np.float32)
    return np.clip(np.rint(values / scales), -127, 127).astype(np.int8), scales


Parts = tuple[list[onnx.TensorProto], list[onnx.NodeProto]]


def _half_parts(name: str, values: Array) -> Parts:
    half = numpy_helper.from_array(values.astype(np.float16), f"{name}__fp16")
    return [half], [_widened(half.name, name)]


def _byte_parts(name: str, values: Array, axis: int) -> Parts:
    quantized, scales = quantize_symmetrically(values, axis)
    tensors = [
        numpy_helper.from_array(quantized, f"{name}__int8"),
        numpy_helper.from_array(scales, f"{name}__scale"),
    ]
    nodes = [
        _widened(tensors[0].name, f"{name}__wide"),
        helper.make_node("Mul", [f"{name}__wide", tensors[1].name], [name], name=f"{name}__rescale"),
    ]
    return tensors, nodes


def _widened(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}__cast", to=TensorProto.FLOAT)


def _replace(graph: onnx.GraphProto, tensor: onnx.TensorProto, parts: Callable[[str, Array], Parts]) -> None:
    """Put what computes a tensor in the place of its initializer."""
    tensors, nodes = parts(tensor.name, numpy_helper.to_array(tensor))
    graph.initializer.remove(tensor)
    graph.initializer.extend(tensors)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _is_large_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= SMALLEST_VALUES
