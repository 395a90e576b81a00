"""Tables of embeddings in bytes: every row keeps its own scale, and other readers of a table their floats."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.passes.quantize.tables import SMALLEST_VALUES, store_tables
from flyweight.compressor.sessions import Session, SessionSettings

ROWS, WIDTH = 1024, 16


def looking_up(table: np.ndarray, *extra: onnx.NodeProto, axis: int = 0) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis), *extra],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def rows_of(model: onnx.ModelProto, folder: Path, ids: np.ndarray) -> np.ndarray:
    onnx.save_model(model, folder / "model.onnx")
    return Session(folder / "model.onnx", SessionSettings()).run({"ids": ids})["y"]


def test_a_row_is_its_bytes_times_its_own_scale(tmp_path: Path) -> None:
    table = np.zeros((ROWS, WIDTH), np.float32)
    table[3, :4] = [127, -64, 0.4, 0.6]
    table[5, :3] = [0.00127, -0.00064, 0.000004]
    model = looking_up(table)
    assert store_tables(model.graph) == 1
    found = rows_of(model, tmp_path, np.array([[3, 5, 0]]))
    # Steps of 1 in row 3 and of 0.00001 in row 5; a row of zeros stays one.
    np.testing.assert_allclose(found[0, 0, :4], [127, -64, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(found[0, 1, :3], [0.00127, -0.00064, 0], rtol=1e-6)
    assert not found[0, 2].any()


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), spread=st.floats(0.01, 100))
def test_no_value_moves_by_more_than_half_a_step_of_its_row(
    seed: int, spread: float, tmp_path_factory
) -> None:
    random = np.random.default_rng(seed)
    scale = np.exp(random.standard_normal((ROWS, 1)) * np.log(1 + spread))
    table = (random.standard_normal((ROWS, WIDTH)) * scale).astype(np.float32)
    model = looking_up(table)
    store_tables(model.graph)
    found = rows_of(model, tmp_path_factory.mktemp("table"), np.arange(ROWS)[None])[0]
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table) <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    ("table", "extra", "axis"),
    [
        (np.ones((4, 4), np.float32), (), 0),
        (np.ones((ROWS, WIDTH), np.float32), (), 1),
        (np.ones((ROWS, WIDTH), np.float32), (helper.make_node("Transpose", ["table"], ["t"]),), 0),
        (np.full((ROWS, WIDTH), np.inf, np.float32), (), 0),
        (np.ones((ROWS, WIDTH), np.float64), (), 0),
    ],
    ids=["small", "columns", "another reader", "infinite", "double"],
)
def test_other_tables_stay_as_they_are(table, extra, axis: int) -> None:
    assert ROWS * WIDTH >= SMALLEST_VALUES
    assert store_tables(looking_up(table, *extra, axis=axis).graph) == 0
