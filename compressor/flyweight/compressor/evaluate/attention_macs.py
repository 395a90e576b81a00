"""Multiply-accumulate operations of operators that attend: scores are products, and so are their sums.

For H heads, Q queries and K keys of D numbers, with values of V numbers: H * Q * K * (D + V) for each row.
"""

import math

import onnx

from flyweight.compressor.evaluate.shapes import Shapes


def attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Count the standard operator (opset 23), of rank 4 (heads apart) or 3, or onnxruntime's older one."""
    if node.domain == "com.microsoft":
        return projecting_attention(node, shapes)
    query, key, value = (shapes[name] for name in node.input[:3])
    past = shapes[node.input[4]][2] if len(node.input) > 4 and node.input[4] else 0
    if len(query) == 4:
        rows, heads, queries, width = query
        return rows * heads * queries * (key[2] + past) * (width + value[3])
    heads, shared = _attribute(node, "q_num_heads"), _attribute(node, "kv_num_heads")
    rows, queries, width = query
    return rows * queries * (key[1] + past) * (width + value[2] // shared * heads)


def multi_head_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Count onnxruntime's MultiHeadAttention with queries, keys and values apart."""
    _require_no_past(node, 6)
    query, key, value = (shapes[name] for name in node.input[:3])
    rows, queries, width = query
    if len(key) == 4:  # heads apart
        return rows * queries * key[2] * (width + value[1] * value[3])
    return rows * queries * key[1] * (width + value[2])


def projecting_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Count onnxruntime's Attention and QAttention, which make queries, keys and values themselves.

    The columns of the weights are H * D for the queries, as many for the keys, and H * V for the values.
    """
    _require_no_past(node, 8 if node.op_type == "QAttention" else 4)
    rows, length, _ = shapes[node.input[0]]
    weight = shapes[node.input[1]]
    made = shapes[node.output[0]][-1] if node.output[0] in shapes else weight[1] // 3
    return rows * length * math.prod(weight) + rows * length * length * (weight[1] + made) // 2


def _require_no_past(node: onnx.NodeProto, place: int) -> None:
    """Refuse what attends to keys of earlier runs too: a KeyError, since only a run can tell how many."""
    if len(node.input) > place and node.input[place]:
        raise KeyError(node.input[place])


def _attribute(node: onnx.NodeProto, name: str) -> int:
    """Return a whole number; a KeyError where it is not there."""
    return {attribute.name: int(attribute.i) for attribute in node.attribute}[name]
