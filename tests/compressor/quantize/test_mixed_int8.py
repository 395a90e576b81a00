"""Mixed precision: what is measured, what is spared, and what becomes of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from flyweight.compressor.errors import OutOfTimeError, PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph, save_graph
from flyweight.compressor.passes.quantize import MixedInt8
from flyweight.compressor.passes.quantize.layers import layers_of
from flyweight.compressor.passes.quantize.placement import Placement
from flyweight.compressor.passes.quantize.sensitivity import (
    SILENT_DB,
    Damage,
    fewest_to_spare,
    measure_sensitivity,
    order_to_spare,
    sqnr_db,
)
from flyweight.compressor.passes.quantize.switchboard import build_switchboard
from flyweight.compressor.sessions import Session, SessionSettings


def fragile(models):
    """An MLP whose first layer has one huge column for an input that is small: its range hurts the rest."""
    graph = load_graph(models.mlp())
    weight = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    weight[:, 0] *= 2000
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    return save_graph(graph, models.folder / "fragile.onnx")


def fragile_data(rows):
    data = rows(x=(16,))
    data.inputs["x"][:, 0] *= 1e-3
    return data


def test_decibels_are_those_of_the_definition() -> None:
    """An error of a tenth in all values is 20 dB."""
    assert sqnr_db(100.0, 1.0) == pytest.approx(20)
    assert sqnr_db(1.0, 0.0) == SILENT_DB
    damage = Damage()
    damage.add({"y": np.array([1.0, 2.0, np.inf])}, {"y": np.array([1.1, 2.2, 5.0])})
    assert damage.sqnr_db == pytest.approx(20)


def test_the_worst_output_counts() -> None:
    damage = Damage()
    damage.add({"a": np.ones(4), "b": np.ones(4)}, {"a": np.ones(4), "b": np.full(4, 1.1)})
    assert damage.sqnr_db == pytest.approx(20)


def test_what_hurts_most_for_its_cost_goes_first() -> None:
    order = order_to_spare({"a": 30.0, "b": 20.0, "c": 19.0}, {"a": 1.0, "b": 1.0, "c": 10.0}, {})
    assert order == ["b", "c", "a"]
    assert order_to_spare({"a": 30.0, "b": 20.0}, {"a": 1.0, "b": 1.0}, {})[0] == "b"
    assert order_to_spare({"a": 21.0, "b": 20.0}, {"a": 1.0, "b": 10.0}, {})[0] == "a"


def test_a_neighbour_of_an_island_is_cheaper() -> None:
    sensitivity, cost = {"a": 10.0, "b": 20.0, "c": 19.5}, dict.fromkeys("abc", 1.0)
    assert order_to_spare(sensitivity, cost, {}) == ["a", "c", "b"]
    assert order_to_spare(sensitivity, cost, {"b": ["a"]}) == ["a", "b", "c"]


@given(st.integers(1, 40), st.integers(0, 60))
def test_bisection_finds_the_smallest_count(most: int, needed: int) -> None:
    found = fewest_to_spare(most, lambda count: float(count >= needed), 0.5)
    assert found == min(needed, most)


def test_switches_choose_what_is_quantized(models, rows, context_of) -> None:
    path, data = models.convnet(), rows(image=(3, 16, 16))
    graph = load_graph(path)
    ranges = {"image": (-4.0, 4.0), "r1": (0.0, 4.0), "f": (0.0, 2.0)}
    layers, context = layers_of(graph.graph), context_of(data)
    board = build_switchboard(graph, layers, ranges, Placement(("Conv",)), {}, context)
    expected = Session(path, SessionSettings()).run({"image": data.inputs["image"][:8]})
    np.testing.assert_allclose(next(board.answers([]))["scores"], expected["scores"], atol=1e-5)
    every = measure_sensitivity(board, list(board.answers([])), context)
    assert set(every) == {"c1", "c2", "scores"}
    assert all(20 < value < 70 for value in every.values())


def test_the_fragile_layer_stays_in_floating_point(models, rows, context_of) -> None:
    path, data = fragile(models), fragile_data(rows)
    context = context_of(data)
    expected = Session(path, SessionSettings()).run(data.inputs)["scores"]
    result = MixedInt8(target_db=25)(Model(path=path), context)
    stored = {t.name: t for t in load_graph(result.model.onnx_path()).graph.initializer}
    assert stored["w1"].data_type == TensorProto.FLOAT
    assert "w2" not in stored
    assert any("as the most sensitive: first" in note for note in result.notes)
    actual = Session(result.model.onnx_path(), SessionSettings()).run(data.inputs)["scores"]
    assert sqnr_db(np.square(expected).sum(), np.square(actual - expected).sum()) > 22


def test_spared_products_can_be_dynamic(models, rows, context_of) -> None:
    path, data = fragile(models), fragile_data(rows)
    result = MixedInt8(target_db=25, spared="dynamic")(Model(path=path), context_of(data))
    operators = [node.op_type for node in load_graph(result.model.onnx_path()).graph.node]
    assert operators.count("DynamicQuantizeLinear") == operators.count("MatMulInteger") == 1
    Session(result.model.onnx_path(), SessionSettings()).run(data.inputs)


def test_a_target_out_of_reach_is_said(models, rows, context_of) -> None:
    with pytest.raises(PassError, match=r"layers in floating point the outputs reach .* dB of the 140 asked"):
        MixedInt8(target_db=140)(Model(path=models.mlp()), context_of(rows(x=(16,))))


def test_the_time_limit_is_kept(models, rows, context_of) -> None:
    from dataclasses import replace

    context = replace(context_of(rows(x=(16,))), deadline=0.0)
    with pytest.raises(OutOfTimeError, match="time limit"):
        MixedInt8()(Model(path=models.mlp()), context)
