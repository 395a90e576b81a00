"""What layers read, patch by patch, and its moments."""

from itertools import product

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.passes.prune.second_moments import Moments, rows_read

ALL = 10**9
RANDOM = np.random.default_rng(0)


def convolved(node: onnx.NodeProto, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return what onnxruntime makes of it."""
    names = [("x", values), ("w", weight)]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in names]
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "conv", given, [answer]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(names))[0]


def test_a_patch_by_hand() -> None:
    """An image of 2 channels, a kernel of two pixels beside one another: channels first, then pixels."""
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    image = np.array([[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]])
    rows = rows_read(node, (1, 2), image, ALL, RANDOM)
    assert rows.tolist() == [[1.0, 2.0, 4.0, 5.0], [2.0, 3.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("kernel", "lengths", "attributes"),
    [
        ((3, 3), (7, 9), {}),
        ((1, 1), (5, 4), {"strides": [2, 2]}),
        ((3, 3), (8, 7), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((3, 2), (7, 7), {"pads": [2, 0, 1, 1], "strides": [1, 3]}),
        ((3, 2), (9, 9), {"pads": [0, 3, 2, 1], "strides": [2, 1], "dilations": [2, 3]}),
        ((4, 5), (4, 5), {}),
        ((3,), (12,), {"pads": [2, 1], "strides": [2], "dilations": [2]}),
        ((5,), (9,), {"auto_pad": "VALID"}),
    ],
)
def test_patches_times_weights_are_the_convolution(kernel, lengths, attributes) -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((3, 4, *lengths)).astype(np.float32)
    weight = random.standard_normal((6, 4, *kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    found = rows_read(node, kernel, values, ALL, random) @ weight.reshape(6, -1).T
    expected = np.moveaxis(convolved(node, values, weight), 1, -1).reshape(-1, 6)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_patches_are_those_of_a_loop_over_places() -> None:
    values = np.random.default_rng(2).standard_normal((2, 3, 6, 5))
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 1], dilations=[1, 2])
    expected = [
        values[sample, :, 2 * row : 2 * row + 3, column : column + 3 : 2].ravel()
        for sample, row, column in product(range(2), range(2), range(3))
    ]
    assert np.array_equal(rows_read(node, (3, 2), values, ALL, RANDOM), expected)


def test_the_same_places_of_every_sample_are_drawn_and_none_twice() -> None:
    image = np.arange(40.0).reshape(2, 1, 4, 5)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    rows = rows_read(node, (1, 1), image, 6, np.random.default_rng(3)).reshape(2, 6)
    assert len(set(rows[0])) == 6
    assert np.array_equal(rows[1], rows[0] + 20)
    again = rows_read(node, (1, 1), image, 6, np.random.default_rng(3)).reshape(2, 6)
    assert np.array_equal(rows, again)


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_product_reads_rows(operator: str) -> None:
    values = np.arange(12.0).reshape(4, 3)
    node = helper.make_node(operator, ["x", "w"], ["y"])
    assert np.array_equal(rows_read(node, (), values, ALL, RANDOM), values)


def test_leading_axes_of_a_product_are_rows() -> None:
    values = np.arange(120.0).reshape(2, 5, 4, 3)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    assert np.array_equal(rows_read(node, (), values, ALL, RANDOM), values.reshape(40, 3))
    some = rows_read(node, (), values, 7, RANDOM)
    assert some.shape == (14, 3)
    assert len({tuple(row) for row in some} & {tuple(row) for row in values.reshape(40, 3)}) == 14


def test_moments_by_hand() -> None:
    found = Moments(2)
    found.add(np.array([[1.0, 2.0], [3.0, -2.0]]))
    assert found.mean.tolist() == [2.0, 0.0]
    assert found.second(centred=False).tolist() == [[5.0, -2.0], [-2.0, 4.0]]
    assert found.second(centred=True).tolist() == [[1.0, -2.0], [-2.0, 4.0]]


def test_moments_are_numpys_however_the_rows_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.compressor.passes.prune.second_moments._ROWS_BYTES", 400)
    rows = np.random.default_rng(4).normal(1.0, 2.0, (300, 5)).astype(np.float32)
    one, other = Moments(5), Moments(5)
    one.add(rows[:111])
    other.add(rows[111:112])
    other.add(rows[112:])
    both = one + other
    assert (both.rows, one.rows, other.rows) == (300, 111, 189)
    assert both.mean == pytest.approx(rows.mean(axis=0), rel=1e-6)
    assert both.second(centred=True) == pytest.approx(np.cov(rows.T, bias=True), rel=1e-5, abs=1e-5)
    assert both.second(centred=False) == pytest.approx(rows.T @ rows / 300, rel=1e-5)


def test_values_that_do_not_differ_have_no_covariance() -> None:
    """However large they are; what float32 loses of their squares would else be taken for one."""
    row = np.random.default_rng(5).normal(1e3, 1e2, (1, 7)).astype(np.float32)
    one, same = Moments(7), Moments(7)
    one.add(row)
    same.add(np.repeat(row, 1000, axis=0))
    for found in (one, same, one + same, Moments(7) + one, one + Moments(7)):
        assert not found.second(centred=True).any()
        assert found.mean == pytest.approx(row[0])


def test_a_small_spread_about_a_large_mean_is_found() -> None:
    rows = np.random.default_rng(6).normal(0, 1, (2000, 3)).astype(np.float32) + np.float32(1e4)
    found = Moments(3)
    found.add(rows[:1000])
    found.add(rows[1000:])
    expected = np.cov(rows.T.astype(np.float64), bias=True)
    assert found.second(centred=True) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_moments_of_nothing_are_zero() -> None:
    assert Moments(3).mean.tolist() == [0.0, 0.0, 0.0]
    assert not Moments(3).second(centred=True).any()
