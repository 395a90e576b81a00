"""Factorisation of ONNX graphs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.factorize.graph import FactorizeGraph
from flyweight.compressor.passes.factorize.layers import Scheme
from flyweight.compressor.sessions import Session, SessionSettings


def low_rank(random: np.random.Generator, rows: int, columns: int, rank: int) -> np.ndarray:
    left, right = random.standard_normal((rows, rank)), random.standard_normal((rank, columns))
    return (left @ right / rank).astype(np.float32)


@pytest.fixture
def convnet(tmp_path: Path) -> Path:
    """Conv (stride 2, uneven pads) -> Relu -> Flatten -> Gemm (transB, alpha, beta) -> MatMul, rank 16."""
    random = np.random.default_rng(0)
    kernel = low_rank(random, 64, 16 * 9, 16).reshape(64, 16, 3, 3)
    weights = {
        "kernel": kernel,
        "dense": low_rank(random, 96, 64 * 16, 16),
        "bias": random.standard_normal(96).astype(np.float32),
        "last": low_rank(random, 96, 48, 16),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], strides=[2, 2], pads=[0, 1, 1, 0], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "bias"], ["g"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("MatMul", ["g", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 48])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "convnet.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def answers(path: Path, data: DataSet) -> np.ndarray:
    return Session(path, SessionSettings()).run(data.inputs)["y"]


@pytest.mark.parametrize("aware", [False, True])
def test_weights_of_low_rank_are_found_and_nothing_is_lost(
    convnet: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context], aware: bool
) -> None:
    data = rows(x=(16, 8, 8))
    result = FactorizeGraph(energy=0.9999, aware=aware)(Model(path=convnet), context_of(data))
    made = onnx.load(result.model.onnx_path())
    assert [node.op_type for node in made.graph.node] == [
        *("Conv", "Conv", "Relu", "Flatten", "Gemm", "Gemm", "MatMul", "MatMul")
    ]
    expected = answers(convnet, data)
    np.testing.assert_allclose(
        answers(result.model.onnx_path(), data), expected, atol=2e-4 * np.abs(expected).max()
    )
    assert result.model.onnx_path().stat().st_size < convnet.stat().st_size / 2
    assert "3 of 3 layers" in result.notes[0]


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_budget_is_kept(
    convnet: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context], scheme: Scheme
) -> None:
    result = FactorizeGraph(budget=0.7, scheme=scheme)(Model(path=convnet), context_of(rows(x=(16, 8, 8))))
    onnx.checker.check_model(onnx.load(result.model.onnx_path()))
    percent = int(result.notes[0].split("went to ")[1].split("%")[0])
    assert percent <= 70


def test_following_answers_loses_less(
    tmp_path: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context]
) -> None:
    """Inputs that lie near a plane of 20 of 96 dimensions, and weights of full rank."""
    random = np.random.default_rng(3)
    data = DataSet({"x": (random.standard_normal((200, 20)) @ random.standard_normal((20, 96))).astype("f4")})
    weight = random.standard_normal((96, 96)).astype(np.float32)
    path = product(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    expected = answers(path, data)
    errors, context = {}, context_of(data)
    for aware in (False, True):
        result = FactorizeGraph(budget=0.7, aware=aware)(Model(path=path), context)
        errors[aware] = float(np.abs(answers(result.model.onnx_path(), data) - expected).mean())
    assert errors[True] < errors[False] / 20


def test_full_rank_is_left_alone(
    tmp_path: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context]
) -> None:
    weight = np.eye(96, dtype=np.float32)
    path = product(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight})
    model = Model(path=path)
    result = FactorizeGraph()(model, context_of(rows(x=(96,))))
    assert not result.changed
    assert result.model is model


def test_a_weight_that_two_nodes_share_is_left_alone(
    tmp_path: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context]
) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    weight = low_rank(np.random.default_rng(0), 96, 96, 4)
    result = FactorizeGraph()(Model(path=product(tmp_path, nodes, {"w": weight})), context_of(rows(x=(96,))))
    assert not result.changed


def test_weights_in_constant_nodes_are_found(
    tmp_path: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context]
) -> None:
    weight = low_rank(np.random.default_rng(0), 96, 96, 4)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "w"))
    path = product(tmp_path, [constant, helper.make_node("MatMul", ["x", "w"], ["y"])], {})
    data = rows(x=(96,))
    result = FactorizeGraph()(Model(path=path), context_of(data))
    assert result.changed
    np.testing.assert_allclose(answers(result.model.onnx_path(), data), answers(path, data), atol=1e-4)


def test_a_budget_that_no_rank_meets_is_refused(
    tmp_path: Path, rows: Callable[..., DataSet], context_of: Callable[..., Context]
) -> None:
    path = product(
        tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(96, dtype=np.float32)}
    )
    with pytest.raises(PassError, match="the least is 33%"):
        FactorizeGraph(budget=0.1)(Model(path=path), context_of(rows(x=(96,))))


def product(folder: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 96])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = folder / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
