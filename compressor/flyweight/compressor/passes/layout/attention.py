"""Scaled dot-product attention written out in small operators, found and put into the one operator for it.

    y = softmax(scale * q k^T + mask) v                 (Vaswani et al. 2017, equation 1), per head

Exporters write it as MatMul, Mul or Div, Add or Where, Softmax, MatMul, with a Reshape and a Transpose before
each of q, k, v and after y to set the heads apart. ONNX has it as one operator, Attention, since opset 23.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.indexing import Entry, element_of
from flyweight.compressor.passes.layout.numbers import known_number
from flyweight.compressor.passes.layout.view import Length, View, remove_unread, sort_nodes

OPSET: Final = 23
# The IR version of opset 23.
IR_VERSION: Final = 11

_HEADS_APART: Final = [0, 2, 1, 3]
_KEYS_APART: Final = [0, 2, 3, 1]
_SWAP_LAST: Final = [0, 1, 3, 2]


@dataclass(frozen=True, slots=True)
class Mask:
    """What is added to the scores: a tensor, or `fill` where `condition` is `chosen`, 0 elsewhere."""

    name: str
    fill: float | None = None
    chosen: bool = True


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention of a graph.

    Attributes:
        query, key, value: tensors of shape (batch, length, heads * size).
        mask: added to the scores (batch, heads, query length, key length), or None.
        scale: of the scores.
        heads: how many there are.
        output: the tensor of shape (batch, query length, heads * size) that the last of its nodes gives.
        last: that node.
    """

    query: str
    key: str
    value: str
    mask: Mask | None
    scale: float
    heads: int
    output: str
    last: onnx.NodeProto


@dataclass(frozen=True, slots=True)
class _Apart:
    """A tensor (batch, length, heads * size) that is set apart by heads, and multiplied by a factor."""

    name: str
    heads: int
    factor: float = 1.0


def find_attentions(view: View) -> Iterator[Attention]:
    """Yield the attentions of a graph whose tensors have known ranks, in order."""
    for node in view.graph.node:
        if node.op_type == "Softmax" and attribute(node, "axis", -1) in {-1, 3}:
            found = _attention(view, node)
            if found is not None:
                yield found


def _attention(view: View, softmax: onnx.NodeProto) -> Attention | None:
    shares = _guarded(view, softmax.output[0])
    product = view.only_consumer(shares, "MatMul")
    if product is None or product.input[0] != shares:
        return None
    scores, mask = _without_mask(view, softmax.input[0])
    scores, scale = _without_scale(view, scores)
    inner = view.producer(scores, "MatMul")
    if inner is None:
        return None
    query_name, query_scale = _without_scale(view, inner.input[0])
    key_name, key_scale = _without_scale(view, inner.input[1])
    together = _heads_together(view, product.output[0])
    parts = (
        _apart(view, query_name, _HEADS_APART),
        _apart(view, key_name, _KEYS_APART) or _swapped_apart(view, key_name),
        _apart(view, product.input[1], _HEADS_APART),
    )
    if together is None or any(part is None for part in parts):
        return None
    query, key, value = (part for part in parts if part is not None)
    if not query.heads == key.heads == value.heads or not _mask_fits(view, mask):
        return None
    scale *= query_scale * key_scale * key.factor
    return Attention(query.name, key.name, value.name, mask, scale, query.heads, together.output[0], together)


def _guarded(view: View, shares: str) -> str:
    """Return the shares where not-a-number is 0, if an exporter guards them so, or as they are.

    A row that may see no key has no shares; the operator Attention gives 0 for it.
    """
    readers = view.consumers(shares)
    if {node.op_type for node in readers} != {"IsNaN", "Where"} or len(readers) != 2:
        return shares
    where = next(node for node in readers if node.op_type == "Where")
    condition = view.producer(where.input[0], "IsNaN")
    if condition is None or condition.input[0] != shares or view.is_output(shares):
        return shares
    sound = where.input[2] == shares and known_number(view, where.input[1]) == 0
    return where.output[0] if sound else shares


def _without_mask(view: View, scores: str) -> tuple[str, Mask | None]:
    add = view.producer(scores, "Add")
    if add is not None:
        for inner, mask in (tuple(add.input), tuple(reversed(add.input))):
            if view.producer(_without_scale(view, inner)[0], "MatMul") is not None:
                return inner, Mask(mask)
    where = view.producer(scores, "Where")
    if where is not None:
        condition, left, right = where.input
        for fill, inner, chosen in ((left, right, True), (right, left, False)):
            value = known_number(view, fill)
            if value is not None and value < 0:
                return inner, Mask(condition, value, chosen)
    return scores, None


def _mask_fits(view: View, mask: Mask | None) -> bool:
    if mask is None:
        return True
    shape = view.shape(mask.name)
    if shape is None or (mask.fill is None and not view.is_float(mask.name)):
        return False
    # Of two axes, those of queries and keys; of three, nobody can tell whether the first is heads or batch.
    return len(shape) in {2, 4}


def _without_scale(view: View, name: str) -> tuple[str, float]:
    """Follow products and quotients with single numbers back; return where they begin, and the factor."""
    factor = 1.0
    while True:
        node = view.producer(name, "Mul", "Div")
        if node is None:
            return name, factor
        number = known_number(view, node.input[1])
        if number is not None and number != 0:
            name, factor = node.input[0], factor * number if node.op_type == "Mul" else factor / number
            continue
        number = known_number(view, node.input[0])
        if number is None or node.op_type == "Div":
            return name, factor
        name, factor = node.input[1], factor * number


def _apart(view: View, name: str, order: list[int]) -> _Apart | None:
    """Return the tensor (batch, length, heads * size) behind one whose heads are set apart."""
    transpose = view.producer(name, "Transpose")
    if transpose is None or _order(transpose) != order:
        return None
    reshape = view.producer(transpose.input[0], "Reshape")
    if reshape is None:
        return None
    before, after = view.shape(reshape.input[0]), view.shape(reshape.output[0])
    if before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    heads, size = after[2:]
    if not isinstance(heads, int) or not isinstance(size, int) or before[2] != heads * size:
        return None
    return _Apart(reshape.input[0], heads)


def _swapped_apart(view: View, name: str) -> _Apart | None:
    """As `_apart` for keys whose last two axes are swapped by a Transpose of its own."""
    transpose = view.producer(name, "Transpose")
    swapped = _swapped_in_three(view, name)
    if transpose is not None and _order(transpose) == _SWAP_LAST:
        swapped = transpose.input[0]
    if swapped is None:
        return None
    inner, factor = _without_scale(view, swapped)
    found = _apart(view, inner, _HEADS_APART)
    return None if found is None else _Apart(found.name, found.heads, factor)


def _swapped_in_three(view: View, name: str) -> str | None:
    """Return what a Reshape to three axes, a Transpose of the last two and a Reshape back were given."""
    last = view.producer(name, "Reshape")
    transpose = None if last is None else view.producer(last.input[0], "Transpose")
    first = None if transpose is None else view.producer(transpose.input[0], "Reshape")
    if last is None or transpose is None or first is None or _order(transpose) != [0, 2, 1]:
        return None
    before, after = view.shape(first.input[0]), view.shape(last.output[0])
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    return first.input[0]


def _heads_together(view: View, name: str) -> onnx.NodeProto | None:
    """Return the Reshape that puts the heads of an attention's result together again."""
    transpose = view.only_consumer(name, "Transpose")
    if transpose is None or _order(transpose) != _HEADS_APART:
        return None
    reshape = view.only_consumer(transpose.output[0], "Reshape")
    if reshape is None:
        return None
    shape = view.shape(reshape.output[0])
    return reshape if shape is not None and len(shape) == 3 else None


def fuse_attentions(model: onnx.ModelProto) -> int:
    """Put every attention into the operator Attention, in place; return how many there were.

    The model's opset must be 23 or later, and its value_info must hold shapes.
    """
    view = View(model.graph)
    found = list(find_attentions(view))
    masks = _Masks(view)
    for number, attention in enumerate(found):
        inputs = [attention.query, attention.key, attention.value]
        if attention.mask is not None:
            inputs.append(masks.added(attention.mask, attention.query))
        fused = helper.make_node(
            "Attention",
            inputs,
            [attention.output],
            name=f"fused_attention_{number}",
            q_num_heads=attention.heads,
            kv_num_heads=attention.heads,
            scale=attention.scale,
        )
        attention.last.CopyFrom(fused)
    if found:
        sort_nodes(model.graph)
        remove_unread(model)
    return len(found)


def _filled_by_where(view: View, name: str) -> Mask | None:
    """Return the condition behind a mask that is added, where it chooses between 0 and another number."""
    where = view.producer(name, "Where")
    if where is None:
        return None
    condition, yes, no = (
        where.input[0],
        known_number(view, where.input[1]),
        known_number(view, where.input[2]),
    )
    if no == 0 and yes is not None:
        return Mask(condition, yes)
    return Mask(condition, no, chosen=False) if yes == 0 and no is not None else None


class _Masks:
    """Brings masks into the form that Attention takes, each once: floats, one row for each query.

    A mask whose every entry is one of a smaller tensor's, however the exporter picks it out, is taken from
    there. onnxruntime's kernel refuses a mask whose third axis has length 1.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._done: dict[tuple[object, ...], str] = {}
        self._plain_ones: dict[Mask, tuple[Mask, tuple[Length, ...]]] = {}

    def added(self, mask: Mask, query: str) -> str:
        mask, shape = self._plain(mask)
        query_shape = self._view.shape(query)
        length = query_shape[1] if query_shape else None
        # Where the length has no name, two queries may differ in it.
        key = (mask, length if length is not None else query, len(shape))
        if key not in self._done:
            name = mask.name if mask.fill is None else self._filled(mask)
            self._done[key] = name if shape[-2] == length else self._expanded(name, query)
        return self._done[key]

    def _plain(self, mask: Mask) -> tuple[Mask, tuple[Length, ...]]:
        """Return the mask on what its condition is an entry of, where that can be told, and its shape."""
        if mask not in self._plain_ones:
            self._plain_ones[mask] = self._on_source(mask)
        return self._plain_ones[mask]

    def _on_source(self, mask: Mask) -> tuple[Mask, tuple[Length, ...]]:
        shape = self._view.shape(mask.name)
        assert shape is not None, "the matcher looked"
        chosen = mask if mask.fill is not None else _filled_by_where(self._view, mask.name)
        entry = None if chosen is None else element_of(self._view, chosen.name)
        if chosen is None or not isinstance(entry, Entry) or len(shape) != 4:
            return mask, shape
        rest = [axis for axis in range(4) if axis - 4 not in entry.axes]
        source = self._view.shape(entry.source)
        if not rest or source is None or entry.axes != tuple(sorted(set(entry.axes))):
            return mask, shape
        name = self._node("Unsqueeze", [entry.source, self._constant(np.array(rest))])
        lengths = dict(zip(entry.axes, source, strict=True))
        return replace(chosen, name=name), tuple(lengths.get(axis, 1) for axis in range(-4, 0))

    def _filled(self, mask: Mask) -> str:
        fill = self._constant(np.float32(mask.fill))
        zero = self._constant(np.float32(0))
        values = (fill, zero) if mask.chosen else (zero, fill)
        return self._node("Where", [mask.name, *values])

    def _expanded(self, name: str, query: str) -> str:
        length = self._node("Shape", [query], start=1, end=2)
        one = self._constant(np.array([1]))
        return self._node("Expand", [name, self._node("Concat", [one, one, length, one], axis=0)])

    def _constant(self, value: Array | np.generic) -> str:
        name = self._fresh()
        self._view.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = self._fresh()
        self._view.graph.node.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _fresh(self) -> str:
        self._count = getattr(self, "_count", -1) + 1
        return f"fused_attention_mask_{self._count}"


def _order(transpose: onnx.NodeProto) -> list[int]:
    """Return in which order a Transpose puts the axes; empty where it turns them round."""
    return attribute(transpose, "perm", list[int]())
