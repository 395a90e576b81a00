"""Repositories written for Triton, served as they are to the stock client by a real server process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.system

Array = NDArray[Any]
OPSET, IR_VERSION = 18, 10
TYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.object_): "BYTES"}


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, tuple[Any, ...]]],
    outputs: list[tuple[str, int, tuple[Any, ...]]],
    initializers: list[onnx.TensorProto] | None = None,
) -> None:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        initializers or [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def scaling(path: Path, scale: float, shape: tuple[Any, ...] = ("n", 4)) -> None:
    weight = numpy_helper.from_array(np.array(scale, np.float32), "scale")
    tensors = [(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    save(path, [helper.make_node("Mul", ["x", "scale"], ["y"])], tensors[:1], tensors[1:], [weight])


def configure(root: Path, model: str, text: str) -> Path:
    (root / model).mkdir(parents=True, exist_ok=True)
    (root / model / "config.pbtxt").write_text(text)
    return root / model


def write_simple(root: Path) -> None:
    """Write the model of Triton's quick start: the sum and the difference of two vectors."""
    vectors = [(name, TensorProto.INT32, ("n", 16)) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    save(root / "simple" / "1" / "model.onnx", nodes, vectors[:2], vectors[2:])
    listed = {
        kind: ", ".join(f'{{name: "{kind.upper()}{i}" data_type: TYPE_INT32 dims: [16]}}' for i in (0, 1))
        for kind in ("input", "output")
    }
    configure(
        root,
        "simple",
        f'name: "simple" platform: "onnxruntime_onnx" max_batch_size: 8 '
        f"input [{listed['input']}] output [{listed['output']}]",
    )


def write_reshaped(root: Path) -> None:
    """Write a classifier in the manner of Triton's densenet: callers leave out what the model has of ones."""
    nodes = [
        helper.make_node("Flatten", ["data_0"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Reshape", ["scores", "shape"], ["fc6_1"]),
    ]
    weights = np.eye(12, 3, dtype=np.float32)
    save(
        root / "densenet" / "1" / "model.onnx",
        nodes,
        [("data_0", TensorProto.FLOAT, (1, 3, 2, 2))],
        [("fc6_1", TensorProto.FLOAT, (1, 3, 1, 1))],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([1, 3, 1, 1], np.int64), "shape"),
        ],
    )
    folder = configure(
        root,
        "densenet",
        """
        platform: "onnxruntime_onnx"
        max_batch_size: 0
        input [{name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 2, 2]
                reshape {shape: [1, 3, 2, 2]}}]
        output [{name: "fc6_1" data_type: TYPE_FP32 dims: [3] reshape {shape: [1, 3, 1, 1]}
                 label_filename: "labels.txt"}]
        """,
    )
    (folder / "labels.txt").write_text("cat\ndog\nbird\n")


def write_busy(root: Path) -> None:
    """Write a model with everything of scheduling, and a warm-up sample from a file."""
    scaling(root / "busy" / "1" / "net.onnx", 2.0)
    folder = configure(
        root,
        "busy",
        """
        backend: "onnxruntime"
        default_model_filename: "net.onnx"
        max_batch_size: 16
        input [{name: "x" data_type: TYPE_FP32 dims: [4]}]
        output [{name: "y" data_type: TYPE_FP32 dims: [4]}]
        dynamic_batching {
          preferred_batch_size: [8, 16] max_queue_delay_microseconds: 100
          priority_levels: 2 default_priority_level: 2
          default_queue_policy {timeout_action: REJECT allow_timeout_override: true max_queue_size: 100}
        }
        instance_group [{count: 2 kind: KIND_CPU}]
        optimization {graph {level: 1}}
        parameters {key: "intra_op_thread_count" value {string_value: "1"}}
        parameters {key: "enable_mem_arena" value {string_value: "0"}}
        model_warmup [{name: "sample" batch_size: 4 count: 2 inputs {key: "x" value {
          data_type: TYPE_FP32 dims: [4] input_data_file: "raw"}}}]
        """,
    )
    (folder / "warmup").mkdir()
    (folder / "warmup" / "raw").write_bytes(np.ones(4, np.float32).tobytes())


def write_ensemble(root: Path) -> None:
    for name, scale in (("double", 2.0), ("triple", 3.0)):
        scaling(root / name / "1" / "model.onnx", scale)
    configure(
        root,
        "chain",
        """
        platform: "ensemble"
        max_batch_size: 4
        input [{name: "INPUT" data_type: TYPE_FP32 dims: [4]}]
        output [{name: "OUTPUT" data_type: TYPE_FP32 dims: [4]}]
        ensemble_scheduling {
          step [
            {model_name: "double" model_version: -1
             input_map {key: "x" value: "INPUT"} output_map {key: "y" value: "between"}},
            {model_name: "triple" model_version: -1
             input_map {key: "x" value: "between"} output_map {key: "y" value: "OUTPUT"}}
          ]
        }
        """,
    )
    (root / "chain" / "1").mkdir()


def write_stateful(root: Path) -> None:
    """Write an accumulator whose state the server keeps."""
    names = [(name, TensorProto.INT32, ("n", 1)) for name in ("INPUT", "STATE_IN", "OUTPUT", "STATE_OUT")]
    nodes = [
        helper.make_node("Add", ["INPUT", "STATE_IN"], ["OUTPUT"]),
        helper.make_node("Identity", ["OUTPUT"], ["STATE_OUT"]),
    ]
    save(root / "counter" / "1" / "model.onnx", nodes, names[:2], names[2:])
    folder = configure(
        root,
        "counter",
        """
        max_batch_size: 8
        sequence_batching {
          max_sequence_idle_microseconds: 600000000
          oldest {max_candidate_sequences: 4}
          state [{input_name: "STATE_IN" output_name: "STATE_OUT" data_type: TYPE_INT32 dims: [1]
                  initial_state: {data_type: TYPE_INT32 dims: [1] data_file: "hundred" name: "start"}}]
        }
        input [{name: "INPUT" data_type: TYPE_INT32 dims: [1]}]
        output [{name: "OUTPUT" data_type: TYPE_INT32 dims: [1]}]
        """,
    )
    (folder / "initial_state").mkdir()
    (folder / "initial_state" / "hundred").write_bytes(np.array([100], np.int32).tobytes())


def write_cached(root: Path) -> None:
    """Write a model that never answers the same twice, unless its answer was kept."""
    node = helper.make_node("RandomUniformLike", ["x"], ["y"])
    tensors = [(name, TensorProto.FLOAT, ("n", 4)) for name in ("x", "y")]
    save(root / "cached" / "1" / "model.onnx", [node], tensors[:1], tensors[1:])
    configure(root, "cached", "response_cache {enable: true}")


def write_versions(root: Path) -> None:
    for version in (1, 2, 3):
        for model in ("every", "latest", "chosen"):
            scaling(root / model / str(version) / "model.onnx", float(version))
    configure(root, "every", "version_policy {all {}}")
    configure(root, "chosen", "version_policy {specific {versions: [1, 3]}}")


def write_refused(root: Path) -> None:
    scaling(root / "gpu" / "1" / "model.onnx", 1.0)
    configure(root, "gpu", "instance_group [{kind: KIND_GPU}]")
    scaling(root / "tensorrt" / "1" / "model.onnx", 1.0)
    configure(
        root,
        "tensorrt",
        'optimization {execution_accelerators {gpu_execution_accelerator [{name: "tensorrt"}]}}',
    )
    configure(root, "python", 'backend: "python"')
    (root / "python" / "1").mkdir()
    (root / "python" / "1" / "model.py").write_text("")
    scaling(root / "cold" / "1" / "model.onnx", 1.0)
    configure(
        root,
        "cold",
        'max_batch_size: 2 model_warmup [{name: "bad" batch_size: 1 inputs {key: "x" value '
        "{data_type: TYPE_FP32 dims: [5] zero_data: true}}}]",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    scaling(folder / "auto" / "1" / "model.onnx", 5.0)
    for write in (
        write_simple,
        write_reshaped,
        write_busy,
        write_ensemble,
        write_stateful,
        write_cached,
        write_versions,
        write_refused,
    ):
        write(folder)
    return folder


@pytest.fixture
def client(start_server: Callable[..., Any], root: Path) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(start_server(root).address)


def tensor(name: str, array: Array) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), TYPES[array.dtype])
    made.set_data_from_numpy(array)
    return made


X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def ask(client: triton.InferenceServerClient, model: str, version: str = "") -> Array:
    result = client.infer(model, [tensor("x", X)], model_version=version).as_numpy("y")
    assert result is not None
    return result


def test_every_layout_answers_as_written(client: triton.InferenceServerClient) -> None:
    """One server for all: each model's own check, so that a start is paid once."""
    _check_simple(client)
    _check_reshape_and_labels(client)
    _check_scheduling(client)
    _check_ensemble(client)
    _check_versions(client)
    np.testing.assert_array_equal(ask(client, "auto"), 5 * X)
    config = client.get_model_config("auto").config
    assert (config.platform, [list(each.dims) for each in config.input]) == ("onnxruntime_onnx", [[4]])


def _check_simple(client: triton.InferenceServerClient) -> None:
    a = np.arange(16, dtype=np.int32).reshape(1, 16)
    b = np.ones((1, 16), np.int32)
    result = client.infer("simple", [tensor("INPUT0", a), tensor("INPUT1", b)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)


def _check_reshape_and_labels(client: triton.InferenceServerClient) -> None:
    image = np.zeros((3, 2, 2), np.float32)
    image[0, 0, 1] = 1.0
    result = client.infer("densenet", [tensor("data_0", image)])
    np.testing.assert_array_equal(result.as_numpy("fc6_1"), [0, 1, 0])
    top = client.infer(
        "densenet",
        [tensor("data_0", image)],
        outputs=[triton.InferRequestedOutput("fc6_1", class_count=1)],
    ).as_numpy("fc6_1")
    assert top is not None
    assert [entry.decode().split(":")[1:] for entry in top.ravel()] == [["1", "dog"]]
    metadata = client.get_model_metadata("densenet")
    assert [list(each.shape) for each in metadata.inputs] == [[3, 2, 2]]


def _check_scheduling(client: triton.InferenceServerClient) -> None:
    result = client.infer("busy", [tensor("x", X)], priority=1, timeout=1_000_000)
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
    config = client.get_model_config("busy").config
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]


def _check_ensemble(client: triton.InferenceServerClient) -> None:
    result = client.infer("chain", [tensor("INPUT", X)])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT"), 6 * X)
    assert client.get_model_config("chain").config.platform == "ensemble"


def _check_versions(client: triton.InferenceServerClient) -> None:
    for model, versions in (("every", (1, 2, 3)), ("latest", (3,)), ("chosen", (1, 3))):
        assert sorted(client.get_model_metadata(model).versions) == [str(each) for each in versions]
        np.testing.assert_array_equal(ask(client, model), 3 * X)
        for version in versions:
            np.testing.assert_array_equal(ask(client, model, str(version)), version * X)


def test_what_is_not_served_is_refused_by_name(client: triton.InferenceServerClient) -> None:
    reasons = {
        entry.name: entry.reason
        for entry in client.get_model_repository_index().models
        if entry.state == "UNAVAILABLE"
    }
    assert sorted(reasons) == ["cold", "gpu", "python", "tensorrt"]
    assert "KIND_GPU" in reasons["gpu"]
    assert "'tensorrt'" in reasons["tensorrt"]
    assert "sample 'bad' of cold" in reasons["cold"]
    assert "model.onnx" in reasons["python"]


def test_state_is_kept_between_the_requests_of_a_sequence(client: triton.InferenceServerClient) -> None:
    def send(value: int, sequence: int | str, start: bool = False, end: bool = False) -> int:
        result = client.infer(
            "counter",
            [tensor("INPUT", np.array([[value]], np.int32))],
            sequence_id=sequence,
            sequence_start=start,
            sequence_end=end,
        ).as_numpy("OUTPUT")
        assert result is not None
        return int(result[0, 0])

    assert [send(1, 7, start=True), send(10, "other", start=True)] == [101, 110]
    assert [send(2, 7), send(20, "other"), send(3, 7, end=True)] == [103, 130, 106]
    with pytest.raises(triton.InferenceServerException, match="needs sequence_start") as caught:
        send(4, 7)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert send(1, 7, start=True, end=True) == 101


def test_sequences_of_many_callers_keep_their_states_apart(client: triton.InferenceServerClient) -> None:
    """Rows of different sequences share runs, and each sum is its own."""

    def count(caller: int) -> list[int]:
        sums: list[int] = []
        for sequence in range(caller * 100 + 1, caller * 100 + 6):
            for number in range(10):
                result = client.infer(
                    "counter",
                    [tensor("INPUT", np.array([[caller]], np.int32))],
                    sequence_id=sequence,
                    sequence_start=number == 0,
                    sequence_end=number == 9,
                ).as_numpy("OUTPUT")
                assert result is not None
            sums.append(int(result[0, 0]))
        return sums

    with ThreadPoolExecutor(4) as callers:
        for caller, sums in enumerate(callers.map(count, range(4))):
            assert sums == [100 + 10 * caller] * 5


def test_requests_of_a_sequence_that_are_sent_ahead_run_in_their_order(
    client: triton.InferenceServerClient,
) -> None:
    answers: Queue[Any] = Queue()
    client.start_stream(lambda result, error: answers.put(error or result.as_numpy("OUTPUT")[0, 0]))
    for number in range(20):
        client.async_stream_infer(
            "counter",
            [tensor("INPUT", np.array([[1]], np.int32))],
            sequence_id=9,
            sequence_start=number == 0,
            sequence_end=number == 19,
        )
    assert [answers.get(timeout=60) for _ in range(20)] == list(range(101, 121))
    client.stop_stream()


def test_an_answer_is_given_again_where_the_model_asks_for_it(client: triton.InferenceServerClient) -> None:
    first = ask(client, "cached")
    np.testing.assert_array_equal(ask(client, "cached"), first)
    other = client.infer("cached", [tensor("x", X + 1)]).as_numpy("y")
    assert not np.array_equal(other, first)


def test_without_room_for_answers_none_is_kept(start_server: Callable[..., Any], root: Path) -> None:
    server = start_server(root, "--response-cache-megabytes", "0")
    client = triton.InferenceServerClient(server.address)
    assert not np.array_equal(ask(client, "cached"), ask(client, "cached"))


def test_an_ensemble_says_which_step_is_gone(client: triton.InferenceServerClient) -> None:
    client.unload_model("triple")
    with pytest.raises(triton.InferenceServerException, match="'chain' needs 'triple'") as caught:
        client.infer("chain", [tensor("INPUT", X)])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("triple")
    client.infer("chain", [tensor("INPUT", X)])
