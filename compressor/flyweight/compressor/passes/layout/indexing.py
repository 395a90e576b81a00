"""Tensors whose every element is told by where it stands: one value, its index, or an element of another.

Exporters that trace a mask as a function of places (torch's vmap, which transformers uses) write
`condition[b, k]` as Range, Unsqueeze, Expand, Concat and GatherND, and "every query is at place 0 or later"
as a comparison. What such a subgraph gives is worked out here by the definitions of the ONNX operators, for
every input and not for some samples; what is not understood is None.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.numbers import known_number, known_values
from flyweight.compressor.passes.layout.view import Length, View

_DEEPEST: Final = 32
# Reading larger constants would cost more than it tells.
_MOST_VALUES: Final = 1 << 20
_INTEGERS: Final = frozenset({TensorProto.INT32, TensorProto.INT64})


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every element is `value`; truth is 1."""

    value: float


@dataclass(frozen=True, slots=True)
class Place:
    """The element at index i is i[axis], with `axis` counted from the last, -1; the axis has this length."""

    axis: int
    length: Length


@dataclass(frozen=True, slots=True)
class Entry:
    """The element at index i is source[i[axes[0]], i[axes[1]], ...], with axes counted from the last, -1."""

    source: str
    axes: tuple[int, ...]


Known = Uniform | Place | Entry


def element_of(view: View, name: str, depth: int = _DEEPEST) -> Known | None:
    """Return what a tensor's elements are, or None where it is neither of the three or cannot be told."""
    tensor = view.stored.get(name)
    if tensor is not None:
        return _stored(tensor)
    node = view.producer(name, *_RULES)
    if node is None or not depth:
        return None
    found = _RULES[node.op_type](view, node, depth - 1)
    return found if found is not None and _fits(view, name, found) else None


def _fits(view: View, name: str, found: Known) -> bool:
    """Return whether every axis that counts is as long as the one it counts along.

    Broadcasting an axis of length 1 repeats it, and its elements no longer tell their index.
    """
    if isinstance(found, Uniform):
        return True
    shape, lengths = view.shape(name), [found.length] if isinstance(found, Place) else None
    axes = (found.axis,) if isinstance(found, Place) else found.axes
    if isinstance(found, Entry):
        lengths = list(view.shape(found.source) or ())
    if shape is None or lengths is None or len(axes) != len(lengths) or -min(axes) > len(shape):
        return False
    return all(
        length is not None and shape[axis] == length for axis, length in zip(axes, lengths, strict=True)
    )


def _stored(tensor: onnx.TensorProto) -> Uniform | Place | None:
    if tensor.data_type == TensorProto.STRING or not 0 < int(np.prod(tensor.dims)) <= _MOST_VALUES:
        return None
    values = numpy_helper.to_array(tensor)
    if (values == values.reshape(-1)[0]).all():
        return Uniform(float(values.reshape(-1)[0]))
    for axis, length in enumerate(values.shape):
        places = np.arange(length).reshape(-1, *[1] * (values.ndim - axis - 1))
        if length > 1 and (values == places).all():
            return Place(axis - values.ndim, length)
    return None


def _same(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    """Identity, and Expand: axes counted from the last stay where they are."""
    return element_of(view, node.input[0], depth)


def _picked(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    """Whatever is picked from a uniform tensor is its value."""
    found = element_of(view, node.input[0], depth)
    return found if isinstance(found, Uniform) else None


def _cast(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    found = element_of(view, node.input[0], depth)
    if isinstance(found, Uniform) and found.value in {0, 1}:
        return found
    return found if isinstance(found, Place) and attribute(node, "to", 0) in _INTEGERS else None


def _range(view: View, node: onnx.NodeProto, _: int) -> Known | None:
    start, limit, step = node.input
    if known_number(view, start) != 0 or known_number(view, step) != 1:
        return None
    length = _length(view, limit)
    return None if length is None else Place(-1, length)


def _length(view: View, name: str) -> Length:
    """Return the length, a number or a symbol, that a tensor of one number holds."""
    node = view.producer(name, "Squeeze", "Reshape", "Identity", "Cast", "Shape")
    while node is not None and node.op_type != "Shape":
        node = view.producer(node.input[0], "Squeeze", "Reshape", "Identity", "Cast", "Shape")
    shape = None if node is None else view.shape(node.input[0])
    if node is None or shape is None:
        return None
    chosen = shape[slice(attribute(node, "start", 0), attribute(node, "end", sys.maxsize))]
    return chosen[0] if len(chosen) == 1 else None


def _unsqueezed(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    found, shape = element_of(view, node.input[0], depth), view.shape(node.input[0])
    # The axes are an input since opset 13, and prepared graphs have at least that.
    added = known_values(view, node.input[1]) if len(node.input) > 1 else None
    if found is None or isinstance(found, Uniform) or shape is None or added is None or None in added:
        return found if isinstance(found, Uniform) else None
    rank = len(shape) + len(added)
    new = {int(axis) % rank for axis in added if axis is not None}
    old = [axis - rank for axis in range(rank) if axis not in new]
    if isinstance(found, Place):
        return Place(old[found.axis], found.length)
    return Entry(found.source, tuple(old[axis] for axis in found.axes))


def _at_least(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    """Compare places, which are 0 or more, with what is 0 or less: always true."""
    larger, smaller = reversed(node.input) if node.op_type == "LessOrEqual" else node.input
    place, bound = element_of(view, larger, depth), element_of(view, smaller, depth)
    certain = isinstance(place, Place) and isinstance(bound, Uniform) and bound.value <= 0
    return Uniform(1.0) if certain else None


def _and(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    """Of two conditions, one that is always true leaves the other."""
    one, other = (_condition(view, name, depth) for name in node.input)
    if one == Uniform(1.0):
        return other
    return one if other == Uniform(1.0) else None


def _condition(view: View, name: str, depth: int) -> Known | None:
    """Return what a condition is: the tensor itself where it is not understood and its rank is known."""
    found = element_of(view, name, depth)
    shape = view.shape(name)
    if found is not None or shape is None:
        return found
    return Entry(name, tuple(range(-len(shape), 0)))


def _gathered(view: View, node: onnx.NodeProto, depth: int) -> Known | None:
    """source[p_0, p_1, ...] where every p_j is a grid of places: the entry there."""
    source, indices = node.input
    joined, shape = view.producer(indices, "Concat"), view.shape(node.output[0])
    if isinstance(element_of(view, source, depth), Uniform):
        return element_of(view, source, depth)
    if joined is None or shape is None or attribute(node, "batch_dims", 0):
        return None
    # The last axis of the indices says which axis of the source; only grids joined there are places.
    if attribute(joined, "axis", 0) not in {-1, len(shape)}:
        return None
    places = [element_of(view, part, depth) for part in joined.input]
    axes = [place.axis + 1 for place in places if isinstance(place, Place) and place.axis < -1]
    return Entry(source, tuple(axes)) if len(axes) == len(places) else None


_RULES: Final[dict[str, Callable[[View, onnx.NodeProto, int], Known | None]]] = {
    "And": _and,
    "Cast": _cast,
    "Expand": _same,
    "Gather": _picked,
    "GatherElements": _picked,
    "GatherND": _gathered,
    "GreaterOrEqual": _at_least,
    "Identity": _same,
    "LessOrEqual": _at_least,
    "Range": _range,
    "Reshape": _picked,
    "Slice": _picked,
    "Squeeze": _picked,
    "Transpose": _picked,
    "Unsqueeze": _unsqueezed,
}
