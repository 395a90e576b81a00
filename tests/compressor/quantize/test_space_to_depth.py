"""Squares of pixels as channels: where, and that answers stay bit by bit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.passes.quantize.space_to_depth import over_squares, squares
from flyweight.compressor.sessions import Session, SessionSettings


def strided(models, *, kernel: int = 3, channels: int = 3, size=(12, 16), batch="n", **attributes):
    """Write an image, a convolution with stride 2 and one behind it."""
    attributes = {"strides": [2, 2], **attributes}
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["a"], name="stem", **attributes),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["y"], name="next"),
    ]
    graph = helper.make_graph(
        nodes,
        "strided",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [models.weight("w0", 16, channels, kernel, kernel), models.weight("w1", 8, 16, 1, 1)],
    )
    return models.write(graph, "strided")


def both_ways(path, data, context, monkeypatch):
    """Quantize as it is done, and without touching the image."""
    made = [StaticInt8()(Model(path=path), context)]
    monkeypatch.setattr("flyweight.compressor.passes.quantize.static_int8.widen_stems", lambda _: [])
    made.append(StaticInt8()(Model(path=path), context))
    return made, [Session(m.model.onnx_path(), SessionSettings()).run(data.inputs)["y"] for m in made]


@pytest.mark.parametrize(
    ("kernel", "channels", "pads"),
    [
        (3, 3, [0, 0, 1, 1]),
        (3, 3, [1, 1, 1, 1]),
        (3, 1, [1, 1, 1, 1]),
        (3, 4, [0, 0, 0, 0]),
        (7, 3, [3, 3, 3, 3]),
        (5, 2, [2, 1, 1, 2]),
        (4, 3, [1, 1, 1, 1]),
    ],
)
def test_no_answer_changes(models, rows, context_of, monkeypatch, kernel: int, channels: int, pads) -> None:
    path, data = strided(models, kernel=kernel, channels=channels, pads=pads), rows(image=(channels, 12, 16))
    (made, _), answers = both_ways(path, data, context_of(data), monkeypatch)
    np.testing.assert_array_equal(*answers)
    operators = [node.op_type for node in load_graph(made.model.onnx_path()).graph.node]
    assert operators.count("Transpose") == 3
    assert "Pad" not in operators
    assert any("Squares" in note for note in made.notes)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"strides": [1, 1]}, (12, 16)),
        ({"strides": [2, 1]}, (12, 16)),
        ({"dilations": [2, 2]}, (12, 16)),
        ({"auto_pad": "SAME_UPPER"}, (12, 16)),
        ({}, (13, 16)),
        ({}, ("h", "w")),
        ({"channels": 5}, (12, 16)),
        ({"kernel": 2}, (12, 16)),
    ],
)
def test_what_is_left_as_it_is(models, rows, context_of, changes, size) -> None:
    path = strided(models, **{**changes, "size": size})
    height, width = (12 if isinstance(length, str) else length for length in size)
    data = rows(image=(changes.get("channels", 3), height, width))
    made = StaticInt8()(Model(path=path), context_of(data))
    assert not any("Squares" in note for note in made.notes)
    Session(made.model.onnx_path(), SessionSettings()).run(data.inputs)


def test_one_row_built_in(models, rows, context_of, monkeypatch) -> None:
    path = strided(models, batch=1, pads=[0, 0, 1, 1])
    data = rows(image=(3, 12, 16))
    made = StaticInt8()(Model(path=path), context_of(data))
    assert any("Squares" in note for note in made.notes)
    Session(made.model.onnx_path(), SessionSettings()).run({"image": data.inputs["image"][:1]})


def test_where_the_weights_go() -> None:
    """Row 2 and column 2 of a 3x3 kernel that begins at the image's edge belong to the next square."""
    kernels = np.arange(9.0).reshape(1, 1, 3, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[0, 0, 1, 1])
    weight = onnx.numpy_helper.from_array(kernels, "w")
    axes = squares(node, weight, ("n", 1, 8, 8))
    assert axes is not None
    expected = [[[0, 2], [6, 8]], [[1, 0], [7, 0]], [[3, 5], [0, 0]], [[4, 0], [0, 0]]]
    np.testing.assert_array_equal(over_squares(kernels, axes)[0], expected)
