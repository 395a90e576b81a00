"""Reading ONNX files with care."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.onnx_model import (
    attribute,
    count_parameters,
    drop_initializer_inputs,
    external_files,
    file_bytes,
    lift_constants,
    load_graph,
    save_graph,
)
from flyweight.compressor.sessions import Session, SessionSettings


def with_external_data(path: Path, location: str = "weights.bin") -> Path:
    target = path.with_name("external.onnx")
    model = onnx.load(path)
    onnx.save_model(model, target, save_as_external_data=True, location=location, size_threshold=0)
    return target


def relocated(path: Path, location: str) -> Path:
    """Rewrite where a model says its data are, without moving them."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx does not exist"):
        load_graph(tmp_path / "nowhere.onnx")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder; give the \.onnx file in it"):
        load_graph(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x00" * 100])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        load_graph(path)


def test_external_data_are_read_and_counted(models) -> None:
    plain = models.mlp()
    path = with_external_data(plain)
    assert [file.name for file in external_files(path, load_graph(path, weights=False))] == ["weights.bin"]
    assert file_bytes(path) == path.stat().st_size + path.with_name("weights.bin").stat().st_size
    assert count_parameters(load_graph(path)) == 16 * 64 + 64 * 10


def test_missing_external_data_are_named(models) -> None:
    path = with_external_data(models.mlp())
    path.with_name("weights.bin").unlink()
    with pytest.raises(ModelError, match=r"keeps data in 'weights\.bin', which is not there"):
        load_graph(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_folder_are_refused(models, location: str) -> None:
    path = relocated(with_external_data(models.mlp()), location)
    with pytest.raises(ModelError, match="outside its folder"):
        load_graph(path)


def test_a_link_out_of_the_folder_is_refused(models, tmp_path: Path) -> None:
    path = with_external_data(models.mlp())
    inner = tmp_path / "inner"
    inner.mkdir()
    path.rename(inner / "model.onnx")
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="outside its folder"):
        load_graph(inner / "model.onnx")


def test_lifting_constants_changes_no_answer(models, tmp_path: Path) -> None:
    path = models.mlp(constants=True)
    graph = load_graph(path)
    assert lift_constants(graph) == 2
    assert {node.op_type for node in graph.graph.node} == {"Gemm", "Relu"}
    lifted = save_graph(graph, tmp_path / "lifted.onnx")
    feed = {"x": np.ones((3, 16), dtype=np.float32)}
    before, after = (Session(p, SessionSettings()).run(feed)["scores"] for p in (path, lifted))
    np.testing.assert_array_equal(before, after)


def test_parameters_in_constant_nodes_and_subgraphs_count(models) -> None:
    assert count_parameters(load_graph(models.mlp(constants=True))) == 16 * 64 + 64 * 10
    assert count_parameters(load_graph(models.choosing())) == 2 * 8 * 32


def test_initializers_listed_as_inputs_are_dropped(models, tmp_path: Path) -> None:
    graph = load_graph(models.mlp())
    graph.ir_version = 3
    graph.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [64, 16]))
    assert drop_initializer_inputs(graph)
    assert [value.name for value in graph.graph.input] == ["x"]
    Session(save_graph(graph, tmp_path / "dropped.onnx"), SessionSettings())
    assert not drop_initializer_inputs(graph)


def test_a_model_with_other_than_tensors_is_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [sequence],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save_model(model, tmp_path / "s.onnx")
    with pytest.raises(ModelError, match=r"'s' is of type seq\(tensor\(float\)\), which cannot be served"):
        Session(tmp_path / "s.onnx", SessionSettings())


def test_errors_of_onnxruntime_come_without_its_codes(models) -> None:
    path = models.mlp()
    session = Session(path, SessionSettings())
    with pytest.raises(ModelError) as failure:
        session.run({"x": np.zeros((1, 3), dtype=np.float32)})
    assert "[ONNXRuntimeError]" not in str(failure.value)


def test_attributes_are_read_in_their_own_type() -> None:
    node = helper.make_node("Any", [], [], axis=2, alpha=0.5, pads=[1, 2], mode="edge", scales=[0.25])
    assert attribute(node, "axis", 0) == 2
    assert attribute(node, "alpha", 1.0) == 0.5
    assert attribute(node, "pads", [0]) == [1, 2]
    assert attribute(node, "mode", b"") == b"edge"
    assert attribute(node, "scales", [0.0]) == [0.25]
    assert attribute(node, "missing", 7) == 7
