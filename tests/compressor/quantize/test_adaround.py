"""Rounding that is learned: what it minimises, and that it never loses against the nearest."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.passes.quantize.adaround import error_of, learn_rounding, round_rows, shrunk
from flyweight.compressor.passes.quantize.layers import layers_of
from flyweight.compressor.passes.quantize.placement import Placement


def moment_of(random: np.random.Generator, length: int, rank: int) -> np.ndarray:
    vectors = random.standard_normal((rank, length))
    return vectors.T @ vectors / rank


def test_opposite_errors_of_equal_inputs_cancel() -> None:
    """Inputs that are always equal: of two weights of 0.4, one is best rounded up, for a sum of 1, not 0."""
    rows, scales = np.array([[0.4, 0.4]]), np.ones((1, 1))
    together = np.ones((2, 2))
    assert round_rows(rows, scales, together, 127).sum() == 1
    assert error_of(np.array([[0.6, -0.4]]), together) == pytest.approx([0.04])
    assert error_of(np.array([[-0.4, -0.4]]), together) == pytest.approx([0.64])


def test_independent_inputs_are_rounded_to_the_nearest() -> None:
    rows = np.random.default_rng(0).uniform(-5, 5, (4, 9))
    np.testing.assert_array_equal(round_rows(rows, np.ones((4, 1)), np.eye(9), 127), np.rint(rows))


@given(st.integers(0, 10_000))
def test_learned_rounding_never_loses_against_the_nearest(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, scales = random.standard_normal((3, 8)), np.full((3, 1), 0.25)
    moment = moment_of(random, 8, 4)
    learned = round_rows(rows, scales, moment, 7)
    nearest = np.clip(np.rint(rows / scales), -7, 7) * scales
    assert (error_of(learned - rows, moment) <= error_of(nearest - rows, moment) + 1e-6).all()


def test_every_weight_is_on_one_of_its_two_neighbours() -> None:
    random = np.random.default_rng(0)
    rows, scales = random.standard_normal((5, 20)), np.full((5, 1), 0.1)
    learned = round_rows(rows, scales, moment_of(random, 20, 10), 127) / scales
    np.testing.assert_allclose(learned, np.rint(learned), atol=1e-5)
    assert (np.abs(learned - rows / scales) < 1 + 1e-5).all()


def test_descent_comes_near_the_best_of_all_roundings() -> None:
    """The slow form: all 2^8 choices of a row."""
    random = np.random.default_rng(1)
    saved = []
    for _ in range(20):
        row, moment = random.uniform(-3, 3, (1, 8)), moment_of(random, 8, 3)
        every = np.floor(row) + np.array(list(itertools.product((0, 1), repeat=8)))
        best = error_of(every - row, moment).min()
        nearest = error_of(np.rint(row) - row, moment)[0]
        found = error_of(round_rows(row, np.ones((1, 1)), moment, 127) - row, moment)[0]
        saved.append((nearest - found) / (nearest - best) if nearest > best else 1.0)
    assert np.mean(saved) > 0.5


def test_few_samples_leave_the_diagonal() -> None:
    moments, means = np.full((1, 3, 3), 4.0), np.full((1, 3), 1.0)
    np.testing.assert_allclose(shrunk(moments, means, 3, centred=False)[0, 0], [4, 2, 2])
    np.testing.assert_allclose(shrunk(moments, means, 3, centred=True)[0, 0], [3, 1.5, 1.5])
    np.testing.assert_allclose(shrunk(moments, means, 10**9, centred=False), moments, rtol=1e-6)


def test_quantized_weights_are_the_learned_ones(models, rows, context_of) -> None:
    """The quantizer finds the same scales again, because the largest weight of a channel never moves."""
    data = rows(image=(3, 16, 16))
    step = StaticInt8(rounding="adaround", bias_correction=False)
    path = models.convnet()
    original = {t.name: onnx.numpy_helper.to_array(t) for t in load_graph(path).graph.initializer}
    made = load_graph(step(Model(path=path), context_of(data)).model.onnx_path())
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    exact = original["w2"] / stored["w2_scale"].reshape(-1, 1, 1, 1)
    moved = np.abs(stored["w2_quantized"] - exact)
    assert (moved < 1.001).all()
    assert (moved > 0.501).any()


def test_each_layer_loses_less_than_by_rounding_to_the_nearest(models, rows, context_of) -> None:
    graph = load_graph(models.convnet())
    ranges = {"image": (-4.0, 4.0), "r1": (0.0, 4.0), "f": (0.0, 2.0)}
    context = context_of(rows(image=(3, 16, 16)))
    count, gain = learn_rounding(graph, ranges, Placement(("Conv", "Gemm")), context, centred=True)
    assert count == 3
    assert 0 < gain < 1
    assert len(layers_of(graph.graph)) == 3
