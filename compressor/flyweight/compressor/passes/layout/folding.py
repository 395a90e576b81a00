"""What every run would compute again though it is known before: constant rows, and needless copies.

Exporters look the type of a token up in a table although nobody gave types, so that the row is always the
same, and widen tensors in full before operators that broadcast by themselves.
"""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.indexing import Uniform, element_of
from flyweight.compressor.passes.layout.view import View, remove_unread

_BROADCASTING: Final = frozenset({"Add", "Div", "Mul", "Sub"})


def fold_known(model: onnx.ModelProto) -> int:
    """Fold, in place, constant rows into what they are added to and drop needless widening; return how many.

    The model's nodes must be sorted, and its value_info must hold shapes. Answers are the same bit for bit:
    a row that is added to a table in fp32 here is the sum that the runs computed.
    """
    lookups = [node for node in model.graph.node if node.op_type == "Gather"]
    folded = sum(_fold_row(View(model.graph), node) for node in lookups)
    folded += _drop_expands(View(model.graph))
    if folded:
        remove_unread(model)
    return folded


def _fold_row(view: View, lookup: onnx.NodeProto) -> bool:
    """Put the row that a Gather always gives into the table, or into the sum, that it is added to."""
    row = _constant_row(view, lookup)
    add = None if row is None else view.only_consumer(lookup.output[0], "Add")
    if row is None or add is None or add.input[0] == add.input[1]:
        return False
    other = next(name for name in add.input if name != lookup.output[0])
    # Were the other tensor the smaller one, the sum would have the shape of the rows.
    if not _same_shape(view, other, lookup.output[0]):
        return False
    other_lookup = _lookup_of(view, other)
    if other_lookup is None or other_lookup.input[0] == lookup.input[0]:
        name = f"{lookup.output[0]}__row"
        view.graph.initializer.append(numpy_helper.from_array(row, name))
        add.input[:] = [other, name]
        return True
    table = view.stored[other_lookup.input[0]]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) + row, table.name))
    other_lookup.output[0] = add.output[0]
    view.graph.node.remove(add)
    return True


def _constant_row(
    view: View, node: onnx.NodeProto
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    if not _is_lookup(view, node):
        return None
    place, table = element_of(view, node.input[1]), view.stored[node.input[0]]
    if not isinstance(place, Uniform) or not -table.dims[0] <= place.value < table.dims[0]:
        return None
    row: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = numpy_helper.to_array(table)[int(place.value)]
    return row


def _lookup_of(view: View, name: str) -> onnx.NodeProto | None:
    """Return the Gather that gives a tensor, if nothing else reads the tensor or the Gather's table."""
    node = view.producer(name, "Gather")
    if node is None or not _is_lookup(view, node) or view.only_consumer(name, "Add") is None:
        return None
    table = node.input[0]
    return node if len(view.consumers(table)) == 1 and not view.is_output(table) else None


def _is_lookup(view: View, node: onnx.NodeProto) -> bool:
    table = view.stored.get(node.input[0]) if node.op_type == "Gather" and not node.domain else None
    if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return False
    return attribute(node, "axis", 0) == 0


def _drop_expands(view: View) -> int:
    """Let operators that broadcast read what an Expand was given, where their other input is as wide."""
    dropped = 0
    for node in view.graph.node:
        if node.op_type != "Expand" or node.domain or view.is_output(node.output[0]):
            continue
        wide, readers = node.output[0], view.consumers(node.output[0])
        if readers and all(_broadcasts(view, reader, wide) for reader in readers):
            for reader in readers:
                reader.input[:] = [node.input[0] if name == wide else name for name in reader.input]
            dropped += 1
    return dropped


def _broadcasts(view: View, node: onnx.NodeProto, wide: str) -> bool:
    others = [name for name in node.input if name != wide]
    return (
        node.op_type in _BROADCASTING
        and not node.domain
        and len(others) == 1
        and _same_shape(view, others[0], wide)
    )


def _same_shape(view: View, one: str, other: str) -> bool:
    """Return whether two tensors are known to have the same lengths."""
    shape = view.shape(one)
    return shape is not None and None not in shape and shape == view.shape(other)
