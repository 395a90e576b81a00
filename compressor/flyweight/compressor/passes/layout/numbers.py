"""Numbers that a graph computes from constants and known lengths, such as one over the root of a head's size.

Exporters compute them anew in every run, and tools that fold constants leave them where another length of the
same shape is free.
"""

import math
import sys
from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.view import View

Values = list[float | None]

# Enough for any shape; reading longer constants would cost more than it tells.
_MOST: Final = 64
_DEEPEST: Final = 16
# What gives the values it was given.
_UNCHANGED: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def known_values(view: View, name: str, depth: int = _DEEPEST) -> Values | None:
    """Return a small tensor's values in order, None for each unknown; None when none can be told."""
    tensor = view.stored.get(name)
    if tensor is not None:
        if math.prod(tensor.dims) > _MOST or tensor.data_type == onnx.TensorProto.STRING:
            return None
        return [float(value) for value in numpy_helper.to_array(tensor).reshape(-1)]
    node = view.producer(name, *_UNCHANGED, *_COMPUTED)
    if node is None or not depth:
        return None
    if node.op_type == "Shape":
        return _lengths(view, node)
    inputs = [known_values(view, inner, depth - 1) if inner else None for inner in node.input]
    if node.op_type in _UNCHANGED:
        return inputs[0]
    return _COMPUTED[node.op_type](node, inputs)


def known_number(view: View, name: str) -> float | None:
    """Return the value of a tensor that holds one known number."""
    values = known_values(view, name)
    return values[0] if values is not None and len(values) == 1 else None


def _lengths(view: View, node: onnx.NodeProto) -> Values | None:
    shape = view.shape(node.input[0])
    if shape is None:
        return None
    chosen = shape[slice(attribute(node, "start", 0), attribute(node, "end", sys.maxsize))]
    return [float(length) if isinstance(length, int) else None for length in chosen]


def _root(_: onnx.NodeProto, inputs: list[Values | None]) -> Values | None:
    if inputs[0] is None:
        return None
    return [None if value is None or value < 0 else math.sqrt(value) for value in inputs[0]]


def _pairwise(combine: Callable[[float, float], float]) -> Callable[..., Values | None]:
    def computed(_: onnx.NodeProto, inputs: list[Values | None]) -> Values | None:
        left, right = inputs
        if left is None or right is None or len(left) != len(right) != 1 != len(left):
            return None
        size = max(len(left), len(right))
        pairs = zip(left * (size // len(left)), right * (size // len(right)), strict=True)
        return [None if a is None or b is None else combine(a, b) for a, b in pairs]

    return computed


def _gathered(_: onnx.NodeProto, inputs: list[Values | None]) -> Values | None:
    values, places = inputs
    if values is None or places is None:
        return None
    try:
        return [None if place is None else values[int(place)] for place in places]
    except IndexError:
        return None


def _sliced(node: onnx.NodeProto, inputs: list[Values | None]) -> Values | None:
    values, bounds = inputs[0], [part[0] if part and len(part) == 1 else None for part in inputs[1:3]]
    step = inputs[4] if len(node.input) > 4 else [1.0]
    if values is None or len(bounds) < 2 or None in bounds or step != [1.0]:
        return None
    start, end = (int(np.clip(bound, -_MOST, _MOST)) for bound in bounds if bound is not None)
    return values[start:end]


_COMPUTED: Final[dict[str, Callable[[onnx.NodeProto, list[Values | None]], Values | None]]] = {
    "Div": _pairwise(lambda a, b: a / b if b else math.nan),
    "Gather": _gathered,
    "Mul": _pairwise(lambda a, b: a * b),
    "Shape": lambda _, inputs: inputs[0],
    "Slice": _sliced,
    "Sqrt": _root,
}
