"""What is known of a tensor's elements before a run: their value, their place, or whose entry they are."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from flyweight.compressor.passes.layout.indexing import Entry, Place, Uniform, element_of
from flyweight.compressor.passes.layout.view import View

CONSTANTS = {
    "zero": np.array(0),
    "one": np.array(1),
    "minus": np.array(-1),
    "true": np.array(True),
    "first": np.array([0]),
    "middle": np.array([1, 2]),
    "last": np.array([-1]),
    "sevens": np.full((2, 3), 7),
    "places": np.arange(4).reshape(1, 4, 1),
    "mixed": np.array([0, 2, 1]),
    "rows": np.array([2, 5, 4, 6]),
}
# The places of the rows and of the columns of x, (n, m), as tensors (n, 1, 1, 1) and (1, 1, 1, m).
GRID: list[tuple[str, list[str], str, dict[str, Any]]] = [
    ("Shape", ["x"], "n1", {"start": 0, "end": 1}),
    ("Shape", ["x"], "m1", {"start": 1, "end": 2}),
    ("Squeeze", ["n1"], "n", {}),
    ("Squeeze", ["m1"], "m", {}),
    ("Range", ["zero", "n", "one"], "i", {}),
    ("Range", ["zero", "m", "one"], "j", {}),
    ("Unsqueeze", ["i", "middle"], "i3", {}),
    ("Unsqueeze", ["i3", "last"], "i4", {}),
    ("Unsqueeze", ["j", "first"], "j2", {}),
    ("Unsqueeze", ["j2", "middle"], "j4", {}),
    ("Max", ["i4", "j4"], "larger", {}),
    ("Shape", ["larger"], "grid", {}),
    ("Expand", ["i4", "grid"], "wide_i", {}),
    ("Expand", ["j4", "grid"], "wide_j", {}),
    ("Unsqueeze", ["wide_i", "last"], "deep_i", {}),
    ("Unsqueeze", ["wide_j", "last"], "deep_j", {}),
    ("Concat", ["deep_i", "deep_j"], "ij", {"axis": -1}),
    ("Concat", ["deep_j", "deep_i"], "ji", {"axis": -1}),
]


def graph_of(
    *nodes: tuple[str, list[str], str, dict[str, Any]], lengths: tuple[Any, Any] = ("n", "m")
) -> Any:
    rows, columns = lengths
    wide = [rows, 1, 1, columns]
    shapes = {
        "i": [rows],
        "j": [columns],
        "i4": [rows, 1, 1, 1],
        "j4": [1, 1, 1, columns],
        "larger": wide,
        "wide_i": wide,
        "wide_j": wide,
        "deep_i": [*wide, 1],
        "deep_j": [*wide, 1],
    }
    made = [helper.make_node(operator, inputs, [name], **rest) for operator, inputs, name, rest in nodes]
    graph = helper.make_graph(
        made,
        "indexing",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, lengths)],
        [helper.make_empty_tensor_value_info(made[-1].output[0])],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
        # Inference does not name the length of a Range; exporters do.
        value_info=[helper.make_tensor_value_info(n, TensorProto.INT64, s) for n, s in shapes.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return shape_inference.infer_shapes(model, data_prop=True)


def found_in(*nodes: tuple[str, list[str], str, dict[str, Any]]) -> Any:
    return element_of(View(graph_of(*GRID, *nodes).graph), nodes[-1][2])


def answer(model: Any, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("sevens", Uniform(7.0)),
        ("places", Place(-2, 4)),
        ("mixed", None),
        ("x", None),
        ("i", Place(-1, "n")),
        ("i4", Place(-4, "n")),
        ("wide_j", Place(-1, "m")),
        ("larger", None),
    ],
)
def test_places_are_followed_through_new_axes_and_widening(name: str, known: Any) -> None:
    assert element_of(View(graph_of(*GRID).graph), name) == known


def test_what_is_picked_at_a_grid_of_places_is_the_entry_there() -> None:
    pick = ("GatherND", ["x", "ij"], "y", {})
    assert found_in(pick) == Entry("x", (-4, -1))
    x = np.random.default_rng(0).random((3, 5)) < 0.5
    np.testing.assert_array_equal(answer(graph_of(*GRID, pick), x), x[:, None, None, :])


def test_a_transposed_pick_is_the_entry_of_a_square_source_alone() -> None:
    """The columns' places pick rows: as long as rows only where both lengths are the same."""
    assert found_in(("GatherND", ["x", "ji"], "y", {})) is None


@pytest.mark.parametrize(
    ("nodes", "known"),
    [
        ([("GreaterOrEqual", ["i4", "zero"], "y", {})], Uniform(1.0)),
        ([("GreaterOrEqual", ["i4", "minus"], "y", {})], Uniform(1.0)),
        ([("LessOrEqual", ["zero", "j4"], "y", {})], Uniform(1.0)),
        ([("GreaterOrEqual", ["i4", "one"], "y", {})], None),
        ([("GreaterOrEqual", ["i4", "j4"], "y", {})], None),
        ([("Less", ["minus", "i4"], "y", {})], None),
        ([("And", ["true", "x"], "y", {})], Entry("x", (-2, -1))),
        ([("And", ["x", "true"], "y", {})], Entry("x", (-2, -1))),
        ([("And", ["x", "x"], "y", {})], None),
        ([("Expand", ["x", "rows"], "y", {})], None),
        ([("Slice", ["sevens", "zero1", "one1"], "y", {})], Uniform(7.0)),
        (
            [
                (
                    "Cast",
                    ["i"],
                    "y",
                    {"to": TensorProto.INT32},
                )
            ],
            Place(-1, "n"),
        ),
        (
            [
                (
                    "Cast",
                    ["i"],
                    "y",
                    {"to": TensorProto.BOOL},
                )
            ],
            None,
        ),
        ([("Cast", ["true"], "y", {"to": TensorProto.INT64})], Uniform(1.0)),
        ([("Cast", ["sevens"], "y", {"to": TensorProto.BOOL})], None),
        ([("Range", ["one", "n", "one"], "y", {})], None),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) else None,
)
def test_comparisons_and_conditions(nodes: list[Any], known: Any) -> None:
    assert found_in(*nodes) == known


def test_an_axis_that_widening_repeats_tells_no_place_any_more() -> None:
    """Of x with one row, the place 0 is repeated four times; so it says nothing of the row."""
    wide = ("Expand", ["i4", "rows"], "y", {})
    assert element_of(View(graph_of(*GRID, wide, lengths=(1, "m")).graph), "y") is None


def test_a_long_chain_ends() -> None:
    nodes = [("Identity", [f"k{place}" if place else "zero"], f"k{place + 1}", {}) for place in range(100)]
    assert found_in(*nodes) is None
