"""Means that are global average pools."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.passes.pooling import pool_globally


def mean_graph(shape: list[int], axes: list[int], keep: int) -> onnx.ModelProto:
    constant = numpy_helper.from_array(np.array(axes, np.int64), "axes")
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], name="mean", keepdims=keep)
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "mean", [source], [target], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, array: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": array})[0]


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [([2, 3, 4, 5], [2, 3]), ([2, 3, 4, 5], [-1, -2]), ([2, 3, 6], [2]), ([1, 2, 3, 4, 5], [2, 3, 4])],
)
def test_a_mean_over_all_spatial_axes_becomes_a_pool_of_the_same_values(
    shape: list[int], axes: list[int], keep: int
) -> None:
    model = mean_graph(shape, axes, keep)
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before = run(model, array)
    assert pool_globally(model) == 1
    assert "ReduceMean" not in {node.op_type for node in model.graph.node}
    assert not model.graph.initializer
    after = run(model, array)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axes"), [([2, 3, 4, 5], [1, 2]), ([2, 3, 4, 5], [3]), ([2, 3], [1]), ([2, 3, 4], [1, 2])]
)
def test_other_means_are_left_alone(shape: list[int], axes: list[int]) -> None:
    model = mean_graph(shape, axes, keep=1)
    before = model.SerializeToString()
    assert pool_globally(model) == 0
    assert model.SerializeToString() == before


def test_a_mean_over_axes_computed_at_run_time_is_left_alone() -> None:
    model = mean_graph([2, 3, 4, 5], [2, 3], keep=1)
    del model.graph.initializer[:]
    model.graph.input.append(helper.make_tensor_value_info("axes", TensorProto.INT64, [2]))
    assert pool_globally(model) == 0
