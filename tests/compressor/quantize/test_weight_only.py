"""Weights in 8 and 4 bits: how far they move, how small they get, and what runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import WeightOnly
from flyweight.compressor.passes.quantize.blocks import pack, quantize_blocks
from flyweight.compressor.sessions import Session, SessionSettings

ROWS = arrays(np.float32, (3, 40), elements=st.floats(-1e4, 1e4, width=32))


@given(ROWS)
def test_the_error_of_a_nibble_is_at_most_half_a_step(rows: np.ndarray) -> None:
    nibbles, scales = quantize_blocks(rows, 16)
    wide = ((nibbles.astype(np.float64) - 8) * scales[:, :, None]).reshape(3, -1)[:, :40]
    assert (np.abs(wide - rows) <= np.repeat(scales, 16, axis=1)[:, :40] / 2 * (1 + 1e-5) + 1e-30).all()


def test_nibbles_and_scales_are_those_of_the_formula() -> None:
    rows = np.zeros((1, 16), dtype=np.float32)
    rows[0, :3] = 0.7, -0.35, 0.14
    nibbles, scales = quantize_blocks(rows, 16)
    assert scales.tolist() == [[pytest.approx(0.1)]]
    assert nibbles[0, 0, :4].tolist() == [15, 4, 9, 8]
    assert pack(nibbles)[0, 0, :2].tolist() == [0x4F, 0x89]


def write_matmul(models, inputs: int = 50):
    """X (n, inputs) -> y (n, 24); a number of inputs that fills no whole blocks."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [models.weight("w", inputs, 24)],
    )
    return models.write(graph, "matmul")


def quantized_values(weight: np.ndarray, block: int) -> np.ndarray:
    """The slow form: block by block."""
    wide = np.zeros_like(weight)
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], block):
            part = weight[row, start : start + block]
            scale = np.abs(part).max() / 7
            wide[row, start : start + block] = np.rint(part / scale) * scale
    return wide


def test_a_product_of_matrices_runs_with_nibbles(models, rows, context_of) -> None:
    path, data = write_matmul(models), rows(x=(50,))
    made = WeightOnly(bits=4)(Model(path=path), context_of(data)).model.onnx_path()
    assert [node.op_type for node in load_graph(made).graph.node] == ["MatMulNBits"]
    weight = numpy_helper.to_array(load_graph(path).graph.initializer[0])
    expected = data.inputs["x"] @ quantized_values(weight.T, 32).T
    actual = Session(made, SessionSettings()).run(data.inputs)["y"]
    # The kernel rounds activations to int8 as well.
    np.testing.assert_allclose(actual, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("transposed", [0, 1])
def test_other_weights_are_widened_to_what_the_formula_says(models, rows, context_of, transposed) -> None:
    weight = models.weight("w", *((24, 50) if transposed else (50, 24)))
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="product", transB=transposed)],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 50])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [weight],
    )
    data = rows(x=(50,))
    made = WeightOnly(bits=4)(Model(path=models.write(graph)), context_of(data)).model.onnx_path()
    values = numpy_helper.to_array(weight)
    wide = quantized_values(values if transposed else values.T, 32)
    actual = Session(made, SessionSettings()).run(data.inputs)["y"]
    np.testing.assert_allclose(actual, data.inputs["x"] @ wide.T, atol=1e-4)


def test_four_bits_keep_the_answers_of_a_convnet(models, rows, context_of) -> None:
    path, data = models.convnet(), rows(image=(3, 16, 16))
    result = WeightOnly(bits=4, block=16)(Model(path=path), context_of(data))
    expected = Session(path, SessionSettings()).run(data.inputs)["scores"]
    actual = Session(result.model.onnx_path(), SessionSettings()).run(data.inputs)["scores"]
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()) > 15
    assert result.model.onnx_path().stat().st_size < 0.4 * path.stat().st_size


def test_nothing_is_widened_in_every_run(models, rows, context_of, tmp_path) -> None:
    import onnx
    import onnxruntime as ort

    path, data = models.convnet(), rows(image=(3, 16, 16))
    seen, context = [], context_of(data)
    for bits in (None, 8, 4):
        given = path
        if bits is not None:
            given = WeightOnly(bits=bits)(Model(path=path), context).model.onnx_path()
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(str(given), options, providers=["CPUExecutionProvider"])
        seen.append([node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node])
    assert seen[0] == seen[1] == seen[2]


def test_small_weights_stay(models, rows, context_of) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [models.weight("w", 4, 4)],
    )
    with pytest.raises(PassError, match="nothing to store"):
        WeightOnly()(Model(path=models.write(graph)), context_of(rows(x=(4,))))


def test_excluded_weights_stay(models, rows, context_of) -> None:
    made = WeightOnly(bits=4, exclude=("conv2",))(
        Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))
    ).model.onnx_path()
    floats = {t.name for t in load_graph(made).graph.initializer if t.data_type == TensorProto.FLOAT}
    assert "w2" in floats
    assert "w1" not in floats
