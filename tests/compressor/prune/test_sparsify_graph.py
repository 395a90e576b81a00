"""Zeros in the weights of ONNX graphs."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.prune.graph_harm import GraphHarm
from flyweight.compressor.passes.prune.graph_weights import graph_weights
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify_graph import SparsifyGraph

MakeContext = Callable[..., Context]


def zeros(model: Model) -> dict[str, float]:
    weights = graph_weights(load_graph(model.onnx_path()))
    return {weight.name: float((weight.values() == 0).mean()) for weight in weights}


def answer(model: Model, data: DataSet) -> np.ndarray:
    session = ort.InferenceSession(str(model.onnx_path()), providers=["CPUExecutionProvider"])
    return session.run(None, dict(data.inputs))[0]


@pytest.fixture
def data(rows: Callable[..., DataSet]) -> DataSet:
    return rows(32, x=(16,))


def test_each_layer_loses_the_ratio(models, data: DataSet, make_context: MakeContext) -> None:
    result = SparsifyGraph(0.5, scope=Scope.LAYER)(Model(path=models.mlp()), make_context(data))
    assert zeros(result.model) == {"w1": 0.5, "w2": 0.5}
    assert "50.0% of 1,664 weights in 2 layers are zero" in result.notes[0]


def test_weights_in_constant_nodes_are_found(models, data: DataSet, make_context: MakeContext) -> None:
    result = SparsifyGraph(0.5, scope=Scope.LAYER)(Model(path=models.mlp(constants=True)), make_context(data))
    assert zeros(result.model) == {"w1": 0.5, "w2": 0.5}


def test_one_threshold_across_layers_takes_more_from_the_smaller_weights(
    models, data: DataSet, make_context: MakeContext
) -> None:
    result = SparsifyGraph(0.5)(Model(path=models.mlp()), make_context(data))
    found = zeros(result.model)
    # w1 is drawn with twice the deviation of w2.
    assert found["w2"] > found["w1"]
    assert found["w1"] * 1024 + found["w2"] * 640 == 832


def test_lamp_spares_the_layer_of_smaller_weights(models, data: DataSet, make_context: MakeContext) -> None:
    model, context = Model(path=models.mlp()), make_context(data)
    one_threshold = SparsifyGraph(0.5)(model, context)
    result = SparsifyGraph(0.5, scope=Scope.LAMP)(model, context)
    found = zeros(result.model)
    assert found["w1"] * 1024 + found["w2"] * 640 == 832
    assert found["w2"] < zeros(one_threshold.model)["w2"]


def test_a_pattern_runs_along_the_input_channels(models, data: DataSet, make_context: MakeContext) -> None:
    result = SparsifyGraph(pattern="2:4")(Model(path=models.mlp()), make_context(data))
    for weight in graph_weights(load_graph(result.model.onnx_path())):
        assert weight.input_axis == 1  # transB
        groups = weight.values().reshape(-1, 4)
        assert ((groups != 0).sum(axis=1) == 2).all()


def test_a_threshold_removes_what_is_not_above_it(models, data: DataSet, make_context: MakeContext) -> None:
    model = Model(path=models.mlp())
    result = SparsifyGraph(threshold=0.1)(model, make_context(data))
    for before, after in zip(
        graph_weights(load_graph(model.onnx_path())),
        graph_weights(load_graph(result.model.onnx_path())),
        strict=True,
    ):
        assert np.array_equal(after.values(), np.where(np.abs(before.values()) > 0.1, before.values(), 0))


def test_sensitivity_spares_the_layer_that_decides(models, data: DataSet, make_context: MakeContext) -> None:
    """The second half of the first layer's outputs is not read by anyone: its weights can all go."""
    path = models.mlp()
    graph = load_graph(path)
    weights = {weight.name: weight for weight in graph_weights(graph)}
    second = weights["w2"].values()
    second[:, 8:] *= 1e-6
    weights["w2"].write(second)
    onnx.save(graph, path)
    model, context = Model(path=path), make_context(data)
    careful = SparsifyGraph(0.7, scope=Scope.SENSITIVITY)(model, context).model
    uniform = SparsifyGraph(0.7, scope=Scope.LAYER)(model, context).model
    expected = answer(model, data)
    assert np.abs(answer(careful, data) - expected).max() < np.abs(answer(uniform, data) - expected).max()
    found = zeros(careful)
    assert found["w1"] * 1024 + found["w2"] * 640 == pytest.approx(0.7 * 1664, abs=2)


def test_harm_is_that_of_the_graph_with_the_zeros_in_it(
    models, data: DataSet, make_context: MakeContext
) -> None:
    graph = load_graph(models.mlp())
    weights = graph_weights(graph)
    harm = GraphHarm(graph, weights, make_context(data))
    assert harm.without("w1", np.ones((64, 16), dtype=bool)) == pytest.approx(0, abs=1e-9)
    # Without any weight of the last layer all classes are equally likely.
    scores = harm._expected[0].astype(np.float64)
    distribution = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    entropy = -(distribution * np.log(distribution)).sum(axis=1).mean()
    assert harm.without("w2", np.zeros((10, 64), dtype=bool)) == pytest.approx(np.log(10) - entropy, rel=1e-4)


def test_weights_inside_a_branch_become_sparse(models, make_context: MakeContext, rows) -> None:
    context = make_context(rows(8, x=(8,)))
    result = SparsifyGraph(0.5, scope=Scope.LAYER)(Model(path=models.choosing()), context)
    assert zeros(result.model) == {"yes": 0.5, "no": 0.5}


def test_only_weights_of_the_main_graph_are_measured(models, make_context: MakeContext, rows) -> None:
    """What is not measured gives as much as it must, and the graph still works."""
    data = rows(8, x=(8,))
    model = Model(path=models.choosing())
    result = SparsifyGraph(0.5, scope=Scope.SENSITIVITY)(model, make_context(data))
    assert zeros(result.model) == {"yes": 0.5, "no": 0.5}
    assert answer(result.model, data).shape == (8, 32)


def test_half_precision_stays_half_precision(tmp_path, make_context: MakeContext, rows) -> None:
    weight = np.arange(1, 9, dtype=np.float16).reshape(4, 2)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8),
        tmp_path / "m.onnx",
    )
    result = SparsifyGraph(pattern="1:2")(Model(path=tmp_path / "m.onnx"), make_context(rows(2, x=(4,))))
    (found,) = graph_weights(load_graph(result.model.onnx_path()))
    assert found.input_axis == 0
    assert found.values().tolist() == [[0, 0], [3, 4], [0, 0], [7, 8]]
    assert found.values().dtype == np.float16


def test_asking_for_zeros_that_are_there_changes_nothing(
    models, data: DataSet, make_context: MakeContext
) -> None:
    context = make_context(data)
    first = SparsifyGraph(0.5, scope=Scope.LAYER)(Model(path=models.mlp()), context)
    again = SparsifyGraph(0.5, scope=Scope.LAYER)(first.model, context)
    assert not again.changed
    assert again.model is first.model


def test_the_original_file_is_not_touched(models, data: DataSet, make_context: MakeContext) -> None:
    path = models.mlp()
    before = path.read_bytes()
    SparsifyGraph(0.5)(Model(path=path), make_context(data))
    assert path.read_bytes() == before


def test_a_graph_without_weights_is_refused(models, make_context: MakeContext, rows) -> None:
    model = Model(path=models.identity(TensorProto.FLOAT, ["n", 4]))
    with pytest.raises(PassError, match="stores no floating-point weights"):
        SparsifyGraph()(model, make_context(rows(2, x=(4,))))


def test_measuring_stops_when_the_time_is_up(models, data: DataSet, make_context: MakeContext) -> None:
    with pytest.raises(OutOfTimeError):
        SparsifyGraph(0.5, scope=Scope.SENSITIVITY)(
            Model(path=models.mlp()), make_context(data, deadline=0.0)
        )
