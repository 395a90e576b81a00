"""Graphs that break compressors: none may crash, and nothing worse than the original may come out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import ModelError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Case = tuple[Any, dict[str, np.ndarray]]


def constants(new, rows) -> Case:
    """Weights in Constant nodes, no initializer at all."""
    graph = new({"x": (FLOAT, ["n", 32])}, {"y": (FLOAT, ["n", 32])})
    graph.weight("w", 32, 32)
    graph.nodes.append(helper.make_node("Constant", [], ["w"], value=graph.stored.pop()))
    graph.node("MatMul", ["x", "w"], ["y"])
    return graph, {"x": rows(32)}


def no_batch(new, rows) -> Case:
    """A vector in, a vector out."""
    graph = new({"x": (FLOAT, [32])}, {"y": (FLOAT, [64])})
    graph.node("MatMul", ["x", graph.weight("w", 32, 64)], ["y"])
    return graph, {"x": rows(32)}


def fixed_batch(new, rows) -> Case:
    graph = new({"x": (FLOAT, [4, 32])}, {"y": (FLOAT, [4, 64])})
    graph.node("Gemm", ["x", graph.weight("w", 32, 64)], ["y"])
    return graph, {"x": rows(32)}


def integers_in(new, rows) -> Case:
    graph = new({"ids": (INT64, ["n", 6])}, {"y": (FLOAT, ["n", 6, 8])})
    graph.node("Gather", [graph.weight("table", 4096, 16), "ids"], ["e"])
    graph.node("MatMul", ["e", graph.weight("w", 16, 8)], ["y"])
    return graph, {"ids": np.random.default_rng(0).integers(0, 4096, (16, 6))}


def state(new, rows) -> Case:
    """A recurrent cell whose state goes in and comes out; three outputs."""
    state_shape = [1, "n", 8]
    graph = new(
        {"x": (FLOAT, [5, "n", 4]), "h": (FLOAT, state_shape), "c": (FLOAT, state_shape)},
        {"y": (FLOAT, [5, 1, "n", 8]), "h_out": (FLOAT, state_shape), "c_out": (FLOAT, state_shape)},
    )
    weights = [graph.weight("w", 1, 32, 4), graph.weight("r", 1, 32, 8), graph.weight("b", 1, 64)]
    graph.node("LSTM", ["x", *weights, "", "h", "c"], ["y", "h_out", "c_out"], hidden_size=8)
    return graph, {"x": rows(5, 1, 4), "h": rows(1, 1, 8), "c": rows(1, 1, 8)}


def several_outputs(new, rows) -> Case:
    graph = new(
        {"x": (FLOAT, ["n", 32])}, {"a": (FLOAT, ["n", 8]), "best": (INT64, ["n"]), "x2": (FLOAT, ["n", 32])}
    )
    graph.node("MatMul", ["x", graph.weight("w", 32, 8)], ["a"])
    graph.node("ArgMax", ["a"], ["best"], axis=1, keepdims=0)
    graph.node("Mul", ["x", "x"], ["x2"])
    return graph, {"x": rows(32)}


def loop(new, rows) -> Case:
    """Everything, weights too, in the body of a Loop."""
    body = new(
        {"i": (INT64, []), "go": (TensorProto.BOOL, []), "h": (FLOAT, ["n", 16])},
        {"go_out": (TensorProto.BOOL, []), "h_out": (FLOAT, ["n", 16])},
    )
    body.node("MatMul", ["h", body.weight("w", 16, 16)], ["p"])
    body.node("Tanh", ["p"], ["h_out"])
    body.node("Identity", ["go"], ["go_out"])
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 16])})
    trips, go = graph.constant("trips", np.array(3)), graph.constant("yes", np.array(True))
    graph.node("Loop", [trips, go, "x"], ["y"], body=body.graph())
    return graph, {"x": rows(16)}


def quantized_pairs(new, rows) -> Case:
    """QuantizeLinear and DequantizeLinear around everything."""
    graph = new({"x": (FLOAT, ["n", 32])}, {"y": (FLOAT, ["n", 32])})
    scale, zero = graph.constant("s", np.float32(0.05)), graph.constant("z", np.uint8(128))
    graph.constant("w8", np.random.default_rng(0).integers(-127, 127, (32, 32)).astype(np.int8))
    graph.node("QuantizeLinear", ["x", scale, zero], ["q"])
    graph.node("DequantizeLinear", ["q", scale, zero], ["d"])
    graph.node("DequantizeLinear", ["w8", graph.constant("ws", np.float32(0.01))], ["w"])
    graph.node("MatMul", ["d", "w"], ["y"])
    return graph, {"x": rows(32)}


def quantized_operators(new, rows) -> Case:
    graph = new({"x": (FLOAT, ["n", 32])}, {"y": (FLOAT, ["n", 32])})
    graph.constant("w8", np.random.default_rng(0).integers(-127, 127, (32, 32)).astype(np.int8))
    graph.node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    graph.node("MatMulInteger", ["q", "w8", "z"], ["p"])
    graph.node("Cast", ["p"], ["f"], to=FLOAT)
    graph.node("Mul", ["f", "s"], ["y"])
    return graph, {"x": rows(32)}


def halves(new, rows) -> Case:
    graph = new({"x": (TensorProto.FLOAT16, ["n", 32])}, {"y": (TensorProto.FLOAT16, ["n", 32])})
    graph.node("MatMul", ["x", graph.weight("w", 32, 32, dtype=np.float16)], ["y"])
    return graph, {"x": rows(32).astype(np.float16)}


def doubles(new, rows) -> Case:
    graph = new({"x": (TensorProto.DOUBLE, ["n", 32])}, {"y": (TensorProto.DOUBLE, ["n", 32])})
    graph.node("MatMul", ["x", graph.weight("w", 32, 32, dtype=np.float64)], ["y"])
    return graph, {"x": rows(32).astype(np.float64)}


def strings(new, rows) -> Case:
    graph = new({"x": (TensorProto.STRING, ["n", 2])}, {"y": (TensorProto.STRING, ["n", 2])})
    graph.node("Identity", ["x"], ["y"])
    return graph, {"x": np.array([["a", "b"]] * 16)}


def empty_weight(new, rows) -> Case:
    """A Concat with a weight of no columns."""
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 16])})
    graph.node("MatMul", ["x", graph.constant("nothing", np.zeros((16, 0), np.float32))], ["empty"])
    graph.node("MatMul", ["x", graph.weight("w", 16, 16)], ["p"])
    graph.node("Concat", ["p", "empty"], ["y"], axis=1)
    return graph, {"x": rows(16)}


def unused_weights(new, rows) -> Case:
    graph, data = no_batch(new, rows)
    graph.weight("spare", 64, 64)
    return graph, data


def without_names(new, rows) -> Case:
    """Nodes that have none, so that excluding or replacing one by its name would take all."""
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 16])})
    graph.node("MatMul", ["x", graph.weight("w1", 16, 16)], ["a"])
    graph.node("Relu", ["a"], ["b"])
    graph.node("MatMul", ["b", graph.weight("w22", 16, 16)], ["c"])
    graph.node("Relu", ["c"], ["y"])
    return graph, {"x": rows(16)}


def local_function(new, rows) -> Case:
    """The product is in a function of the model's own."""
    imports = [helper.make_opsetid("", 17)]
    body = [helper.make_node("MatMul", ["a", "b"], ["p"]), helper.make_node("Relu", ["p"], ["c"])]
    function = helper.make_function("local", "Layer", ["a", "b"], ["c"], body, imports)
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, ["n", 16])}, functions=[function], domains=["local"])
    graph.node("Layer", ["x", graph.weight("w", 16, 16)], ["y"], domain="local")
    return graph, {"x": rows(16)}


def scalar_output(new, rows) -> Case:
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, [])})
    graph.node("ReduceSum", ["x"], ["y"], keepdims=0)
    return graph, {"x": rows(16)}


def input_is_output(new, rows) -> Case:
    graph = new({"x": (FLOAT, ["n", 16])}, {"x": (FLOAT, ["n", 16])})
    return graph, {"x": rows(16)}


def constant_output(new, rows) -> Case:
    """The answer does not depend on the input."""
    graph = new({"x": (FLOAT, ["n", 16])}, {"y": (FLOAT, [4, 4])})
    graph.node("Identity", ["x"], ["unread"])
    graph.node("Identity", [graph.weight("w", 4, 4)], ["y"])
    return graph, {"x": rows(16)}


CASES = [
    constants, no_batch, fixed_batch, integers_in, state, several_outputs, loop, quantized_pairs,
    quantized_operators, halves, doubles, strings, empty_weight, unused_weights, without_names,
    local_function, scalar_output, input_is_output, constant_output,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_nothing_harmful_comes_of_a_strange_graph(case, strange, normal, squeeze, tmp_path: Path) -> None:
    graph, arrays = case(strange, normal)
    report = squeeze(graph.save(tmp_path / "strange.onnx"), arrays)
    assert report.baseline.verdict.published


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 20, 23])
def test_every_opset_is_taken(opset: int, strange, normal, squeeze, tmp_path: Path) -> None:
    graph = strange({"x": (FLOAT, ["n", 64])}, {"y": (FLOAT, ["n", 10])}, opset=opset)
    graph.node("Gemm", ["x", graph.weight("w1", 64, 128), graph.weight("b1", 128)], ["h"])
    graph.node("Relu", ["h"], ["r"])
    graph.node("Gemm", ["r", graph.weight("w22", 128, 10), graph.weight("b22", 10)], ["y"])
    report = squeeze(graph.save(tmp_path / "strange.onnx"), {"x": normal(64)})
    for name in ("int8", "int8-dynamic"):
        assert report.variant(name).evaluation is not None, report.variant(name).verdict.reason


def test_initializers_among_the_inputs_stay_settable_or_become_constants(
    strange, normal, squeeze, tmp_path: Path
) -> None:
    graph, arrays = no_batch(strange, normal)
    model = graph.model()
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [32, 64]))
    onnx.save_model(model, tmp_path / "strange.onnx")
    squeeze(tmp_path / "strange.onnx", arrays)


def test_external_data_are_taken_along(strange, normal, squeeze, tmp_path: Path) -> None:
    graph, arrays = fixed_batch(strange, normal)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    report = squeeze(graph.save(tmp_path / "strange.onnx", **options), arrays)
    assert report.baseline.path is not None
    assert (report.baseline.path / "weights.bin").stat().st_size == 32 * 64 * 4


def test_an_operator_that_onnxruntime_does_not_know_is_named(
    strange, normal, squeeze, tmp_path: Path
) -> None:
    graph = strange({"x": (FLOAT, ["n", 4])}, {"y": (FLOAT, ["n", 4])}, domains=["my.company"])
    graph.node("Sparkle", ["x"], ["y"], domain="my.company")
    with pytest.raises(ModelError, match=r"onnxruntime cannot load .*my\.company.*Sparkle"):
        squeeze(graph.save(tmp_path / "strange.onnx"), {"x": normal(4)})


def test_two_nodes_of_one_name_are_told(strange, normal, squeeze, tmp_path: Path) -> None:
    """No such file loads, so nobody could serve it."""
    graph, arrays = without_names(strange, normal)
    for node in graph.nodes:
        node.name = "same"
    with pytest.raises(ModelError, match=r"two nodes with same node name \(same\)"):
        squeeze(graph.save(tmp_path / "strange.onnx"), arrays)


def test_a_model_that_fails_on_the_data_is_told_with_the_reason(
    strange, normal, squeeze, tmp_path: Path
) -> None:
    """The row that an index names is not there."""
    graph = strange({"ids": (INT64, ["n"])}, {"y": (FLOAT, ["n", 8])})
    graph.node("Gather", [graph.weight("table", 4, 8), "ids"], ["y"])
    with pytest.raises(ModelError, match=r"cannot run on this input .*out of data bounds|indices"):
        squeeze(graph.save(tmp_path / "strange.onnx"), {"ids": np.full(16, 9)})


def test_a_graph_with_a_type_that_lies_is_refused(strange, normal, squeeze, tmp_path: Path) -> None:
    graph, arrays = no_batch(strange, normal)
    graph.stored[0] = numpy_helper.from_array(np.zeros((3, 3), np.float32), "w")
    with pytest.raises(ModelError):
        squeeze(graph.save(tmp_path / "strange.onnx"), arrays)
