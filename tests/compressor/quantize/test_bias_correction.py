"""Means of channels after quantization are what they were before."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.passes.quantize.bias_correction import correct_biases, measure_shifts
from flyweight.compressor.passes.quantize.layers import layers_of
from flyweight.compressor.passes.quantize.placement import Placement
from flyweight.compressor.sessions import Session, SessionSettings

BOTH = Placement(("Conv", "Gemm"))


def write_product(models, weight: np.ndarray, opset: int = 17, bias: np.ndarray | None = None):
    """X (n, inputs) -> y (n, outputs) through one Gemm."""
    stored = [numpy_helper.from_array(weight, "w")]
    if bias is not None:
        stored.append(numpy_helper.from_array(bias, "b"))
    graph = helper.make_graph(
        [
            helper.make_node(
                "Gemm", ["x", "w", *(["b"] if bias is not None else [])], ["y"], name="g", transB=1
            )
        ],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[0]])],
        stored,
    )
    return models.write(graph, "one", opset)


@pytest.mark.parametrize("opset", [17, 20])
def test_the_shift_is_what_rounding_takes_from_the_mean(models, rows, context_of, opset: int) -> None:
    """W = (127, 0.4) has scale 1, so 0.4 becomes 0; x is 1 everywhere: y falls by 0.4."""
    path = write_product(models, np.array([[127.0, 0.4]], dtype=np.float32), opset)
    data = rows(x=(2,))
    data.inputs["x"][:] = 1
    graph = load_graph(path)
    shifts = measure_shifts(graph, layers_of(graph.graph), {"x": (0.0, 1.0)}, BOTH, context_of(data))
    assert shifts["y"] == pytest.approx([-0.4], abs=1e-4)


@pytest.mark.parametrize("bias", [None, 2.0])
def test_a_bias_is_shifted_and_a_missing_one_is_added(models, rows, context_of, bias: float | None) -> None:
    weight = np.array([[127.0, 0.4]], dtype=np.float32)
    path = write_product(models, weight, bias=None if bias is None else np.array([bias], dtype=np.float32))
    data = rows(x=(2,))
    data.inputs["x"][:] = 1
    graph = load_graph(path)
    assert correct_biases(graph, graph, {"x": (0.0, 1.0)}, BOTH, context_of(data)) == 1
    stored = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    assert stored[graph.graph.node[0].input[2]] == pytest.approx([(bias or 0) + 0.4], abs=1e-4)
    assert "b" not in stored


def test_means_after_correction_are_those_before(models, rows, context_of) -> None:
    data = rows(samples=200, image=(3, 16, 16))
    path = models.convnet()
    expected = Session(path, SessionSettings()).run(data.inputs)["scores"].mean(axis=0)
    errors, context = [], context_of(data)
    for corrected in (False, True):
        step = StaticInt8(bias_correction=corrected, per_channel=False)
        made = step(Model(path=path), context).model.onnx_path()
        actual = Session(made, SessionSettings()).run(data.inputs)["scores"].mean(axis=0)
        errors.append(float(np.abs(actual - expected).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_the_reference_is_the_original_and_not_the_rounded_graph(models, rows, context_of) -> None:
    """With rounded weights in the graph, only the original knows what the means were."""
    data = rows(x=(2,))
    data.inputs["x"][:] = 1
    original = load_graph(write_product(models, np.array([[127.0, 0.4]], dtype=np.float32)))
    rounded = onnx.ModelProto()
    rounded.CopyFrom(original)
    layers_of(rounded.graph)[0].set_rows(np.array([[127.0, 0.0]]))
    correct_biases(rounded, original, {"x": (0.0, 1.0)}, BOTH, context_of(data))
    stored = {t.name: numpy_helper.to_array(t) for t in rounded.graph.initializer}
    assert stored["y__corrected"] == pytest.approx([0.4], abs=1e-4)


def test_a_layer_whose_input_has_no_range_is_left_alone(models, rows, context_of) -> None:
    graph = load_graph(models.mlp())
    before = graph.SerializeToString()
    assert correct_biases(graph, graph, {}, BOTH, context_of(rows(x=(16,)))) == 0
    assert graph.SerializeToString() == before
