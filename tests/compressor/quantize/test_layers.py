"""Layers as rows of weights, the grids they are rounded to, and the patches they read."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper

from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize.layers import Layer, byte_grid, layers_of, rounded, scales_of
from flyweight.compressor.passes.quantize.patches import can_cut, cut_patches
from flyweight.compressor.sessions import Session, SessionSettings

ROWS = arrays(np.float32, (3, 6), elements=st.floats(-100, 100, width=32))


def layer(weight: np.ndarray, operator: str = "Conv", axis: int = 0, **attributes: object) -> Layer:
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    return Layer(node, numpy_helper.from_array(weight, "w"), axis)


def test_the_layers_of_a_network_are_its_products_with_constants(models) -> None:
    found = layers_of(load_graph(models.convnet()).graph)
    assert [(each.name, each.channels, each.axis) for each in found] == [
        ("c1", 16, 0),
        ("c2", 32, 0),
        ("scores", 10, 0),
    ]


def test_layers_are_excluded_by_name_and_by_type(models) -> None:
    found = layers_of(load_graph(models.convnet()).graph, ("conv2", "Gemm"))
    assert [each.name for each in found] == ["c1"]


def test_a_weight_that_two_layers_read_is_no_ones(models) -> None:
    graph = load_graph(models.mlp()).graph
    graph.node[0].input[1] = "w2"
    assert layers_of(graph) == []


@pytest.mark.parametrize(("operator", "axis"), [("MatMul", 1), ("Gemm", 1), ("Gemm", 0), ("Conv", 0)])
def test_writing_the_rows_that_were_read_changes_nothing(operator: str, axis: int) -> None:
    shape = (4, 3, 2, 2) if operator == "Conv" else (4, 3)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    subject = layer(weight, operator, axis)
    assert subject.rows().shape[0] == shape[axis]
    subject.set_rows(subject.rows())
    np.testing.assert_array_equal(numpy_helper.to_array(subject.weight), weight)


@given(ROWS)
def test_rounding_moves_a_weight_by_half_a_step_at_most(rows: np.ndarray) -> None:
    scales = scales_of(rows, 127, per_channel=True)
    error = np.abs(rounded(rows, 127, per_channel=True).astype(np.float64) - rows)
    assert (error <= scales / 2 * (1 + 1e-4) + 1e-30).all()


def test_one_scale_for_all_rows_is_that_of_the_largest() -> None:
    rows = np.array([[1.27, 0.5], [2.54, 0.0]], dtype=np.float32)
    assert scales_of(rows, 127, per_channel=False).ravel().tolist() == pytest.approx([0.02, 0.02])
    assert scales_of(rows, 127, per_channel=True).ravel().tolist() == pytest.approx([0.01, 0.02])


def test_rounding_again_changes_nothing() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    once = rounded(rows, 127, per_channel=True)
    np.testing.assert_allclose(rounded(once, 127, per_channel=True), once, rtol=1e-6)


def test_a_grid_holds_zero_exactly() -> None:
    assert byte_grid(0.0, 2.55) == (pytest.approx(0.01), 0)
    assert byte_grid(-1.0, 1.55) == (pytest.approx(0.01), 100)
    assert byte_grid(1.0, 2.55) == (pytest.approx(0.01), 0)
    assert byte_grid(0.0, 0.0) == (1.0, 0)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((5, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((5, 4, 3, 2), {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
        ((6, 1, 3, 3), {"group": 6, "dilations": [2, 1]}),
        ((6, 2, 1, 1), {"group": 2}),
        ((5, 4, 3), {"strides": [2]}),
    ],
)
def test_patches_times_weights_are_the_convolution(shape, attributes, tmp_path) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal(shape).astype(np.float32)
    subject = layer(weight, **attributes)
    channels = shape[1] * subject.groups
    x = random.standard_normal((2, channels, *([9] * (len(shape) - 2)))).astype(np.float32)
    graph = helper.make_graph(
        [subject.node],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [subject.weight],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save_model(model, tmp_path / "one.onnx")
    expected = Session(tmp_path / "one.onnx", SessionSettings()).run({"x": x})["y"]
    patches = cut_patches(subject, x, 10**6, random)
    rows = weight.reshape(subject.groups, -1, int(np.prod(shape[1:])))
    found = np.einsum("gpn,gon->pgo", patches, rows).reshape(len(x), *expected.shape[2:], shape[0])
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)


def test_no_more_patches_are_cut_than_asked() -> None:
    subject = layer(np.ones((2, 3, 2, 2), dtype=np.float32))
    x = np.ones((4, 3, 8, 8), dtype=np.float32)
    assert cut_patches(subject, x, 7, np.random.default_rng(0)).shape == (1, 7, 12)


def test_automatic_padding_is_left_to_others() -> None:
    weight = np.ones((2, 3, 2, 2), dtype=np.float32)
    assert not can_cut(layer(weight, auto_pad="SAME_UPPER"))
    assert can_cut(layer(weight, auto_pad="NOTSET"))
    assert not can_cut(layer(np.ones((2, 3), dtype=np.float32), "Gemm", transA=1))
