"""Weights stored in fewer bits: how far they move, and that what runs stays the same graph."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flyweight.compressor.onnx_model import load_graph, save_graph
from flyweight.compressor.passes.quantize.stored import (
    quantize_symmetrically,
    store_as_bytes,
    store_as_half,
)
from flyweight.compressor.sessions import Session, SessionSettings

FLOATS = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, (3, 5), elements=FLOATS))
def test_the_error_of_a_byte_is_at_most_half_a_step(values: np.ndarray) -> None:
    quantized, scales = quantize_symmetrically(values, axis=0)
    error = np.abs(values - quantized.astype(np.float64) * scales)
    assert (error <= scales * 0.5 * (1 + 1e-5) + 1e-30).all()


@given(arrays(np.float32, (4, 3), elements=FLOATS))
def test_zero_stays_zero_and_the_largest_uses_all_of_a_byte(values: np.ndarray) -> None:
    quantized, _ = quantize_symmetrically(values, axis=1)
    assert not quantized[values == 0].any()
    largest = np.abs(values).max(axis=0)
    assert (np.abs(quantized).max(axis=0)[largest > 1e-30] == 127).all()


def test_bytes_and_scales_are_those_of_the_formula() -> None:
    quantized, scales = quantize_symmetrically(np.array([[1.0, -2.54], [0.0, 0.0]]), axis=0)
    assert scales.ravel().tolist() == pytest.approx([0.02, 1.0])
    assert quantized.tolist() == [[50, -127], [0, 0]]


def test_weights_too_small_for_a_normal_scale_become_zero() -> None:
    quantized, scales = quantize_symmetrically(np.array([[1e-45, -1e-40]], dtype=np.float32), axis=0)
    assert quantized.tolist() == [[0, 0]]
    assert scales.tolist() == [[1.0]]


def optimised_operators(path, tmp_path) -> list[str]:
    """Return the operators that onnxruntime runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


def test_half_is_widened_at_load_and_not_in_every_run(models, tmp_path) -> None:
    path = models.convnet()
    graph = load_graph(path)
    assert store_as_half(graph) == (3, 0)
    stored = save_graph(graph, tmp_path / "half.onnx")
    assert stored.stat().st_size < 0.6 * path.stat().st_size
    assert optimised_operators(stored, tmp_path) == optimised_operators(path, tmp_path)


def test_bytes_are_widened_at_load_and_not_in_every_run(models, tmp_path) -> None:
    path = models.convnet()
    graph = load_graph(path)
    assert store_as_bytes(graph.graph, ["w1", "w2"]) == 2
    stored = save_graph(graph, tmp_path / "bytes.onnx")
    assert stored.stat().st_size < 0.45 * path.stat().st_size
    assert optimised_operators(stored, tmp_path) == optimised_operators(path, tmp_path)


def test_half_moves_a_weight_by_at_most_a_part_in_2048(models, tmp_path) -> None:
    path = models.convnet()
    graph = load_graph(path)
    store_as_half(graph)
    feed = {"image": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)}
    before = Session(path, SessionSettings()).run(feed)["scores"]
    after = Session(save_graph(graph, tmp_path / "half.onnx"), SessionSettings()).run(feed)["scores"]
    np.testing.assert_allclose(after, before, atol=np.abs(before).max() * 3 * 2**-11)


def test_a_weight_beyond_the_range_of_half_stays(models) -> None:
    graph = load_graph(models.mlp())
    weight = onnx.numpy_helper.to_array(graph.graph.initializer[0]).copy()
    weight[0, 0] = 1e6
    graph.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w1"))
    assert store_as_half(graph) == (1, 1)


def test_weights_in_the_branches_of_an_if_are_stored_too(models, tmp_path) -> None:
    graph = load_graph(models.choosing())
    assert store_as_half(graph) == (2, 0)
    Session(save_graph(graph, tmp_path / "half.onnx"), SessionSettings())
