"""Bytes, compressed bytes, and weights that are not zero."""

import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.size import deflated_bytes, measure_size
from flyweight.compressor.evaluate.zeros import count_zeros
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import StaticInt8


def test_a_dense_networks_size(models) -> None:
    path = models.mlp()
    size = measure_size(path)
    assert size.file_bytes == path.stat().st_size
    assert size.parameters == size.nonzero_parameters == 16 * 64 + 64 * 10
    assert size.bits_per_weight == pytest.approx(8 * size.file_bytes / 1664)
    assert 32 < size.bits_per_weight < 36


def test_what_is_published_counts_when_it_is_another_file(models, tmp_path) -> None:
    stored = tmp_path / "model.onnx.fw"
    stored.write_bytes(b"\0" * 5000)
    size = measure_size(models.mlp(), stored)
    assert (size.file_bytes, size.parameters) == (5000, 1664)
    assert size.compressed_bytes < 50


def test_a_stream_in_pieces_is_as_long_as_in_one(tmp_path) -> None:
    content = np.random.default_rng(0).integers(0, 9, 3_000_000, dtype=np.uint8).tobytes()
    path = tmp_path / "content"
    path.write_bytes(content)
    assert deflated_bytes(path) == len(zlib.compress(content, 6))


def test_external_data_count_and_are_read(models, tmp_path) -> None:
    model = onnx.load(models.mlp())
    weight = np.zeros((64, 16), dtype=np.float32)
    weight[0] = 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    path = tmp_path / "external.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="data", size_threshold=0)
    size = measure_size(path)
    assert size.file_bytes > 4 * 1664
    assert size.nonzero_parameters == 16 + 640
    (tmp_path / "data").write_bytes(b"short")
    with pytest.raises(ModelError, match="'w1'"):
        measure_size(path)


def quantized(values: np.ndarray, points: np.ndarray, axis: int = 0) -> onnx.ModelProto:
    scales = np.ones(points.shape, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis),
            helper.make_node("MatMul", ["x", "d"], ["y"]),
        ],
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", values.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", values.shape[1]])],
        [
            numpy_helper.from_array(values, "w"),
            numpy_helper.from_array(scales, "s"),
            numpy_helper.from_array(points, "z"),
        ],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_a_quantized_weight_is_zero_at_its_zero_point(tmp_path) -> None:
    values = np.array([[128, 0, 128], [7, 128, 5]], dtype=np.uint8)
    assert count_zeros(quantized(values, np.array(128, dtype=np.uint8)), tmp_path) == 3
    assert count_zeros(quantized(values, np.array([0, 5], dtype=np.uint8)), tmp_path) == 2
    columns = np.array([128, 1, 5], dtype=np.uint8)
    assert count_zeros(quantized(values, columns, axis=1), tmp_path) == 2


def test_a_shared_weight_is_zero_where_its_codebook_is(tmp_path) -> None:
    """Index 1 stands for 0, index 0 for 0.5."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["codes"], ["places"], to=TensorProto.INT32),
            helper.make_node("Gather", ["book", "places"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(np.array([[1, 0, 1], [2, 1, 0]], dtype=np.uint8), "codes"),
            numpy_helper.from_array(np.array([0.5, 0.0, 2.0], dtype=np.float32), "book"),
        ],
    )
    # Three weights, and the codebook's own zero.
    assert count_zeros(helper.make_model(graph), tmp_path) == 4


def test_int8_of_a_dense_network_has_hardly_a_zero(models, rows, context_of) -> None:
    path = StaticInt8()(Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))).model.onnx_path()
    size = measure_size(path)
    assert size.nonzero_parameters > 0.9 * size.parameters
    assert count_zeros(load_graph(path), path.parent) < 0.05 * size.parameters
