"""Numbers that a graph computes from constants and lengths are known before it runs."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.passes.layout.numbers import known_number, known_values
from flyweight.compressor.passes.layout.view import View


def view_of(*nodes: tuple[str, list[str], str, dict[str, Any]], **stored: Any) -> View:
    graph = helper.make_graph(
        [
            helper.make_node(operator, inputs, [name], **attributes)
            for operator, inputs, name, attributes in nodes
        ],
        "numbers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return View(graph)


def test_the_factor_of_an_attention_is_known_from_the_size_of_a_head() -> None:
    view = view_of(
        ("Shape", ["x"], "shape", {}),
        ("Slice", ["shape", "last", "end"], "size", {}),
        ("Cast", ["size"], "wide", {"to": TensorProto.FLOAT}),
        ("Sqrt", ["wide"], "root", {}),
        ("Div", ["one", "root"], "factor", {}),
        last=np.array([-1]),
        end=np.array([2**62]),
        one=np.ones(1, np.float32),
    )
    assert known_number(view, "factor") == 1 / 8


def test_free_lengths_are_unknown_and_the_others_are_not() -> None:
    view = view_of(("Shape", ["x"], "shape", {}), ("Shape", ["x"], "end", {"start": 1}))
    assert known_values(view, "shape") == [None, 7, 64]
    assert known_values(view, "end") == [7, 64]
    assert known_number(view, "shape") is None


@pytest.mark.parametrize(
    ("operator", "inputs", "values"),
    [
        ("Mul", ["pair", "two"], [8, 18]),
        ("Div", ["two", "pair"], [0.5, 2 / 9]),
        ("Sqrt", ["pair"], [2, 3]),
        ("Gather", ["pair", "index"], [9]),
        ("Gather", ["pair", "far"], None),
        ("Mul", ["pair", "three"], None),
        ("Add", ["pair", "two"], None),
        ("Mul", ["pair", "unknown"], None),
        ("Mul", ["pair", "many"], None),
    ],
)
def test_what_is_computed_is_known_or_said_to_be_unknown(operator: str, inputs: list[str], values) -> None:
    view = view_of(
        (operator, inputs, "y", {}),
        pair=np.array([4.0, 9.0]),
        two=np.array(2.0),
        three=np.ones(3),
        index=np.array(1),
        far=np.array(5),
        many=np.ones(100),
    )
    assert known_values(view, "y") == values


def test_a_long_chain_ends() -> None:
    nodes = [("Identity", [f"i{place}"], f"i{place + 1}", {}) for place in range(100)]
    assert known_values(view_of(*nodes, i0=np.array(1.0)), "i100") is None
