"""Channels of images padded for integer kernels: where, and that answers stay bit by bit."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.passes.quantize.stem import widen_stems
from flyweight.compressor.sessions import Session, SessionSettings


def write(models, channels: int, kernel: int, *, readers: int = 1):
    nodes = [
        helper.make_node("Conv", ["image", f"w{place}"], [f"y{place}"], name=f"c{place}")
        for place in range(readers)
    ]
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, 12, 12])],
        [helper.make_tensor_value_info(f"y{place}", TensorProto.FLOAT, None) for place in range(readers)],
        [models.weight(f"w{place}", 16, channels, kernel, kernel) for place in range(readers)],
    )
    return models.write(graph, "stem")


def quantized(models, rows, context_of, channels: int, kernel: int, readers: int = 1):
    path = write(models, channels, kernel, readers=readers)
    data = rows(image=(channels, 12, 12))
    return StaticInt8()(Model(path=path), context_of(data)).model.onnx_path(), data


@pytest.mark.parametrize(
    ("channels", "kernel", "padded"),
    [(3, 3, 1), (2, 5, 1), (7, 3, 1), (1, 3, 0), (4, 3, 0), (3, 1, 0), (5, 3, 0)],
)
def test_where_channels_are_padded(models, rows, context_of, channels: int, kernel: int, padded: int) -> None:
    made, _ = quantized(models, rows, context_of, channels, kernel)
    assert [node.op_type for node in load_graph(made).graph.node].count("Pad") == padded


def test_all_readers_are_padded_together(models, rows, context_of) -> None:
    made, data = quantized(models, rows, context_of, 3, 3, readers=2)
    graph = load_graph(made)
    assert [node.op_type for node in graph.graph.node].count("Pad") == 1
    assert {
        tuple(t.dims) for t in graph.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1
    } == {(16, 4, 3, 3)}
    Session(made, SessionSettings()).run(data.inputs)


def test_padding_changes_no_answer(models, rows, context_of, monkeypatch) -> None:
    path, data = write(models, 3, 3), rows(image=(3, 12, 12))
    context, made = context_of(data), []
    for step in (widen_stems, lambda _: []):
        monkeypatch.setattr("flyweight.compressor.passes.quantize.static_int8.widen_stems", step)
        made.append(StaticInt8()(Model(path=path), context).model.onnx_path())
    answers = [Session(each, SessionSettings()).run(data.inputs)["y0"] for each in made]
    np.testing.assert_array_equal(*answers)


def test_a_graph_that_is_not_quantized_is_left_alone(models) -> None:
    graph = load_graph(models.convnet())
    before = graph.SerializeToString()
    assert widen_stems(graph) == []
    assert graph.SerializeToString() == before


@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_weights_that_two_images_meet_stay_as_they_are(models, rows, context_of, strides) -> None:
    nodes = [
        helper.make_node("Conv", [name, "w"], [f"y_{name}"], name=f"c_{name}", strides=strides)
        for name in ("left", "right")
    ]
    graph = helper.make_graph(
        nodes,
        "twins",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 12, 12])
            for name in ("left", "right")
        ],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in nodes],
        [models.weight("w", 16, 3, 3, 3)],
    )
    data = rows(left=(3, 12, 12), right=(3, 12, 12))
    path = models.write(graph, "twins")
    made = StaticInt8()(Model(path=path), context_of(data)).model.onnx_path()
    stored = [tuple(tensor.dims) for tensor in load_graph(made).graph.initializer]
    assert (16, 3, 3, 3) in stored
    Session(made, SessionSettings()).run(data.inputs)
