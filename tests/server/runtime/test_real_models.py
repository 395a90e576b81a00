"""What every runtime that holds real models does with them: the same answers, errors and sentences."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.server.errors import DeadlineExceeded, InvalidRequest, LoadFailed, RunFailed
from flyweight.server.runtime.seam import RuntimeFactory, SessionSettings, TensorSpec

SETTINGS = SessionSettings()


@pytest.mark.parametrize(
    ("onnx_type", "datatype", "array"),
    [
        (TensorProto.BOOL, "BOOL", np.array([[True, False]])),
        (TensorProto.INT8, "INT8", np.array([[-5, 7]], np.int8)),
        (TensorProto.UINT8, "UINT8", np.array([[5, 250]], np.uint8)),
        (TensorProto.INT32, "INT32", np.array([[-5, 7]], np.int32)),
        (TensorProto.INT64, "INT64", np.array([[-5, 2**40]], np.int64)),
        (TensorProto.FLOAT16, "FP16", np.array([[0.5, -2]], np.float16)),
        (TensorProto.FLOAT, "FP32", np.array([[0.5, np.nan]], np.float32)),
        (TensorProto.DOUBLE, "FP64", np.array([[0.5, -2]], np.float64)),
    ],
)
def test_numbers_of_every_type_pass_unchanged(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path, onnx_type: int, datatype: str, array: np.ndarray
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", onnx_type, [None, 2])],
        [("y", onnx_type, [None, 2])],
    )
    runtime = factory.load(path, SETTINGS)
    assert runtime.signature.inputs == (TensorSpec("x", datatype, (-1, 2)),)
    answer = runtime.run({"x": array}).outputs["y"]
    assert answer.dtype == array.dtype
    np.testing.assert_array_equal(answer, array)


def test_strings_go_in_and_come_out_as_bytes(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.STRING, [None, 2])],
        [("y", TensorProto.STRING, [None, 2])],
    )
    runtime = factory.load(path, SETTINGS)
    words = np.array([[b"abc", "né".encode()], [b"", b"0"]], dtype=object)
    answer = runtime.run({"x": words}).outputs["y"]
    assert answer.tolist() == words.tolist()
    with pytest.raises(InvalidRequest, match=r"'x' holds bytes that are not UTF-8 text \(element 1\)"):
        runtime.run({"x": np.array([[b"a", b"\xff"]], dtype=object)})


def test_a_scalar_is_an_array_without_axes(factory: RuntimeFactory, save_graph: Any, tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        [("x", TensorProto.FLOAT, ["n"]), ("k", TensorProto.FLOAT, [])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    runtime = factory.load(path, SETTINGS)
    assert runtime.signature.inputs[1] == TensorSpec("k", "FP32", ())
    answer = runtime.run({"x": np.ones(3, np.float32), "k": np.array(4, np.float32)})
    assert answer.outputs["y"].tolist() == [4, 4, 4]


def test_an_initializer_that_is_listed_as_an_input_is_optional(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        [("x", TensorProto.FLOAT, ["n"]), ("k", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([3], np.float32), "k")],
    )
    runtime = factory.load(path, SETTINGS)
    x = np.ones(2, np.float32)
    assert [spec.optional for spec in runtime.signature.inputs] == [False, True]
    assert runtime.run({"x": x}).outputs["y"].tolist() == [3, 3]
    assert runtime.run({"x": x, "k": np.array([5], np.float32)}).outputs["y"].tolist() == [5, 5]


def external(path: Path, location: str) -> Path:
    """Write y = x + w with w of four floats in another file."""
    w = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        w.external_data.add(key=key, value=value)
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", floats[:1], floats[1:], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def weights() -> bytes:
    return np.arange(4, dtype=np.float32).tobytes()


def test_external_data_beside_the_model_is_read(
    factory: RuntimeFactory, tmp_path: Path, weights: bytes
) -> None:
    path = external(tmp_path / "v" / "model.onnx", "model.onnx.data")
    (tmp_path / "v" / "model.onnx.data").write_bytes(weights)
    runtime = factory.load(path, SETTINGS)
    assert runtime.run({"x": np.zeros((1, 4), np.float32)}).outputs["y"].tolist() == [[0, 1, 2, 3]]
    assert runtime.memory.file_bytes == path.stat().st_size + 16


@pytest.mark.parametrize("location", ["../outside", "link", "/etc/hostname"])
def test_external_data_outside_the_folder_is_refused(
    factory: RuntimeFactory, tmp_path: Path, weights: bytes, location: str
) -> None:
    path = external(tmp_path / "v" / "model.onnx", location)
    (tmp_path / "outside").write_bytes(weights)
    (tmp_path / "v" / "link").symlink_to("../outside")
    with pytest.raises(LoadFailed, match="cannot be loaded: External data path validation failed"):
        factory.load(path, SETTINGS)


def test_outputs_that_are_not_tensors_are_refused_by_name(factory: RuntimeFactory, tmp_path: Path) -> None:
    """As scikit-learn's classifiers are exported by default, with a ZipMap at the end."""
    zipmap = helper.make_node(
        "ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        [zipmap],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_value_info("probabilities", maps)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    with pytest.raises(
        LoadFailed, match=r"output 'probabilities'.*seq\(map\(int64,tensor\(float\)\)\).*zipmap"
    ):
        factory.load(path, SETTINGS)


@pytest.mark.parametrize("content", [b"", b"\x00garbage", b"not a model"])
def test_a_file_that_is_not_a_model_is_named(factory: RuntimeFactory, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadFailed) as caught:
        factory.load(path, SETTINGS)
    assert str(path) in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_model_is_refused(factory: RuntimeFactory, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="not a file"):
        factory.load(tmp_path, SETTINGS)


def test_a_failure_in_the_model_ends_one_request_only(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [("x", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")],
    )
    runtime = factory.load(path, SETTINGS)
    with pytest.raises((RunFailed, InvalidRequest), match="out of data bounds"):
        runtime.run({"x": np.array([7])})
    assert runtime.run({"x": np.array([2])}).outputs["y"].tolist() == [2]


def test_a_shape_that_only_the_model_knows_to_be_wrong_fails_by_name(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "z"], ["y"])],
        [("x", TensorProto.FLOAT, ["n"]), ("z", TensorProto.FLOAT, ["m"])],
        [("y", TensorProto.FLOAT, [None])],
    )
    runtime = factory.load(path, SETTINGS)
    expected = r"cannot compute with these shapes \(x \[2\], z \[3\]\): .*broadcast"
    with pytest.raises(InvalidRequest, match=expected) as caught:
        runtime.run({"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)})
    assert "onnxruntime" not in str(caught.value)


def test_a_model_that_fails_on_the_shape_it_asked_for_is_at_fault(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    """Five numbers in rows of two do not come out even, and five is what the signature says."""
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", 5])],
        [("y", TensorProto.FLOAT, ["m", 2])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 2])],
    )
    with pytest.raises(RunFailed, match="cannot be reshaped"):
        factory.load(path, SETTINGS).run({"x": np.zeros((1, 5), np.float32)})


def test_a_deadline_in_the_past_costs_no_run(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path
) -> None:
    runtime = factory.load(tiny_model(tmp_path / "m.onnx"), SETTINGS)
    with pytest.raises(DeadlineExceeded):
        runtime.run({"x": np.zeros((1, 4), np.float32)}, deadline_monotonic=0.0)


def test_several_inputs_and_outputs_keep_their_names(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path
) -> None:
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Identity", ["word"], ["echo"])],
        [
            ("a", TensorProto.INT64, ["n"]),
            ("b", TensorProto.INT64, ["n"]),
            ("word", TensorProto.STRING, ["m"]),
        ],
        [("sum", TensorProto.INT64, ["n"]), ("echo", TensorProto.STRING, ["m"])],
    )
    runtime = factory.load(path, SETTINGS)
    inputs = {"word": np.array([b"x", b"yy"], object), "b": np.array([1, 2, 3]), "a": np.array([10, 20, 30])}
    outputs = runtime.run(inputs).outputs
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "sum": [11, 22, 33],
        "echo": [b"x", b"yy"],
    }
    assert list(runtime.run(inputs, ["echo", "sum"]).outputs) == ["echo", "sum"]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), ()])
def test_arrays_without_elements_or_axes_keep_their_shape(
    factory: RuntimeFactory, save_graph: Any, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    axes = [None] * len(shape)
    path = save_graph(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["t"])],
        [("x", TensorProto.FLOAT, axes), ("s", TensorProto.STRING, axes)],
        [("y", TensorProto.FLOAT, axes), ("t", TensorProto.STRING, axes)],
    )
    answer = factory.load(path, SETTINGS).run(
        {"x": np.ones(shape, np.float32), "s": np.full(shape, b"w", object)}
    )
    assert answer.outputs["y"].shape == answer.outputs["t"].shape == shape
    np.testing.assert_array_equal(answer.outputs["y"], -np.ones(shape, np.float32))
    assert answer.outputs["t"].tolist() == np.full(shape, b"w", object).tolist()


@pytest.mark.parametrize("rows", [1, 1_000, 1_000_000])
def test_small_and_large_tensors_come_back_whole(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path, rows: int
) -> None:
    runtime = factory.load(tiny_model(tmp_path / "m.onnx", scale=3.0), SETTINGS)
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    for _ in range(2):
        y = runtime.run({"x": x}).outputs["y"]
        np.testing.assert_array_equal(y, 3 * x)


def test_an_answer_stays_as_it_is_when_others_follow(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path
) -> None:
    runtime = factory.load(tiny_model(tmp_path / "m.onnx", scale=1.0), SETTINGS)
    for rows in (1, 50_000):
        answers = [
            runtime.run({"x": np.full((rows, 4), number, np.float32)}).outputs["y"] for number in range(5)
        ]
        assert [float(answer.max()) for answer in answers] == [0, 1, 2, 3, 4]
        assert all(answer.flags.writeable for answer in answers)


def test_arrays_that_are_not_contiguous_are_read_as_they_look(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path
) -> None:
    runtime = factory.load(tiny_model(tmp_path / "m.onnx", scale=1.0), SETTINGS)
    for rows in (3, 50_000):
        x = np.arange(rows * 8, dtype=np.float32).reshape(4, 2 * rows).T[::2]
        assert not x.flags.c_contiguous
        np.testing.assert_array_equal(runtime.run({"x": x}).outputs["y"], x)


def test_an_unknown_name_is_refused_in_the_same_words(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path
) -> None:
    runtime = factory.load(tiny_model(tmp_path / "m.onnx"), SETTINGS)
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(InvalidRequest, match=r"does not accept the inputs: Invalid input name: z"):
        runtime.run({"x": x, "z": x})
    with pytest.raises(InvalidRequest, match=r"does not accept the inputs: Invalid output name: ?z"):
        runtime.run({"x": x}, ["z"])


def test_the_session_has_the_settings_it_was_given(
    factory: RuntimeFactory, tiny_model: Any, tmp_path: Path
) -> None:
    path = tiny_model(tmp_path / "m.onnx")
    with pytest.raises(LoadFailed, match=r"m\.onnx asks for the session setting 'session.save_model'"):
        factory.load(path, SessionSettings(1, {"session.save_model": "/tmp/x"}))
    entries = {"session.set_denormal_as_zero": "1"}
    tiny = np.full((1, 4), 1e-40, np.float32)
    assert (factory.load(path, SETTINGS).run({"x": tiny}).outputs["y"] > 0).all()
    assert factory.load(path, SessionSettings(1, entries)).signature.inputs[0].name == "x"
