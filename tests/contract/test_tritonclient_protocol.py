"""Stock `tritonclient` against a real server: tensors, streams, asyncio, the small RPCs of the extensions."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any
from uuid import uuid4

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto, helper, save
from tritonclient.utils import InferenceServerException

from flyweight.server.app import Server
from flyweight.server.settings import Compat, ServerSettings, Transport

ELEMENTS = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}
LABELS = ("zero", "one", "two")
Served = Callable[..., AbstractContextManager[str]]


def write_identity(folder: Path, element: int, shape: list[Any]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape)],
    )
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, folder / "model.onnx")


def write_repository(root: Path) -> None:
    for datatype, (element, _) in ELEMENTS.items():
        write_identity(root / datatype.lower() / "1", element, ["n", "m"])
    write_identity(root / "bf16" / "1", TensorProto.BFLOAT16, ["n", "m"])
    write_identity(root / "scalar" / "1", TensorProto.FLOAT, [])
    write_identity(root / "pair" / "1", TensorProto.FLOAT, [2, "m"])
    write_identity(root / "classes" / "1", TensorProto.FLOAT, ["n", 4])
    (root / "classes" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (root / "classes" / "config.pbtxt").write_text(
        'max_batch_size: 8\ninput { name: "x" data_type: TYPE_FP32 dims: 4 }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: 4 label_filename: "labels.txt" }\n'
    )


def answer_to(result: Any, error: Any) -> str:
    """Return the id of an answer, or the words of a failure."""
    return str(error) if error else str(result.get_response().id)


@pytest.fixture(scope="session")
def served(transport: str) -> Served:
    """Return a context over a repository and settings, which gives the address of a server of these."""

    @contextmanager
    def serving(repository: Path, **settings: Any) -> Iterator[str]:
        settings = {"port": 0, "metrics_port": 0, "transport": Transport(transport), **settings}
        server = Server(ServerSettings(repository, **settings))
        try:
            yield server.start().address
        finally:
            server.stop()

    return serving


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    write_repository(root)
    return root


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def client(repository: Path, traces: Path, served: Served) -> Iterator[Any]:
    with (
        served(repository, shared_memory=True, trace_folder=traces) as address,
        triton.InferenceServerClient(address) as found,
    ):
        yield found


@pytest.fixture
def plain(tmp_path: Path, served: Served) -> Iterator[Any]:
    """Return a client of a server on which nothing is switched on."""
    write_identity(tmp_path / "fp32" / "1", TensorProto.FLOAT, ["n", "m"])
    with served(tmp_path) as address, triton.InferenceServerClient(address) as found:
        yield found


def tensor(array: Any, datatype: str) -> Any:
    return triton.InferInput("x", list(array.shape), datatype).set_data_from_numpy(array)


def sample(datatype: str) -> Any:
    dtype = ELEMENTS[datatype][1]
    if datatype == "BYTES":
        return np.array([["", "hé"], ["a\0b", "line\n"]], dtype=np.object_)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max], [0, 1]], dtype)
    limits = np.finfo(dtype)
    return np.array([[limits.min, limits.max], [limits.smallest_subnormal, -0.0]], dtype)


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_every_datatype_comes_back_as_it_was_sent(client: Any, datatype: str) -> None:
    array = sample(datatype)
    result = client.infer(datatype.lower(), [tensor(array, datatype)])
    answer = result.as_numpy("y")
    assert result.get_output("y").datatype == datatype
    if datatype == "BYTES":
        assert [[each.decode() for each in row] for row in answer] == array.tolist()
    else:
        assert answer.dtype == array.dtype
        np.testing.assert_array_equal(answer, array)


@pytest.mark.parametrize("datatype", sorted(set(ELEMENTS) - {"FP16"}))
def test_typed_contents_come_back_as_they_were_sent(client: Any, datatype: str) -> None:
    field = {
        "BOOL": "bool_contents",
        "INT64": "int64_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }.get(datatype, "uint_contents" if datatype.startswith("U") else "int_contents")
    array = sample(datatype)
    request = triton.service_pb2.ModelInferRequest(model_name=datatype.lower())
    given = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
    values = [each.encode() for each in array.ravel()] if datatype == "BYTES" else array.ravel().tolist()
    getattr(given.contents, field).extend(values)
    response = client._client_stub.ModelInfer(request)
    raw = client.infer(datatype.lower(), [tensor(array, datatype)]).get_response()
    assert list(response.raw_output_contents) == list(raw.raw_output_contents)


def test_bf16_is_refused_in_a_sentence_that_names_both_types(client: Any) -> None:
    given = tensor(np.array([[1, 2]], ml_dtypes.bfloat16), "BF16")
    with pytest.raises(InferenceServerException, match="'x' is BF16 where FP32 is expected") as caught:
        client.infer("fp32", [given])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_bf16_goes_to_a_model_that_takes_it_and_comes_back(client: Any) -> None:
    array = np.array([[1.5, -2.0], [np.inf, 3.140625]], ml_dtypes.bfloat16)
    result = client.infer("bf16", [tensor(array, "BF16")])
    assert result.get_output("y").datatype == "BF16"
    assert result.get_response().raw_output_contents[0] == array.tobytes()
    np.testing.assert_array_equal(result.as_numpy("y").astype(np.float32), array.astype(np.float32))


def test_a_scalar_and_an_empty_tensor_are_tensors(client: Any) -> None:
    assert client.infer("scalar", [tensor(np.array(7, np.float32), "FP32")]).as_numpy("y").item() == 7
    answer = client.infer("pair", [tensor(np.empty((2, 0), np.float32), "FP32")]).as_numpy("y")
    assert answer.shape == (2, 0)


def test_the_largest_classes_come_with_their_labels(client: Any) -> None:
    x = np.array([[1, 5, 10, 4], [0.5, 0.25, 0.125, 1e-9]], np.float32)
    wanted = triton.InferRequestedOutput("y", class_count=3)
    answer = client.infer("classes", [tensor(x, "FP32")], outputs=[wanted]).as_numpy("y")
    # The fourth class has no label.
    assert answer.tolist() == [
        [b"10.0:2:two", b"5.0:1:one", b"4.0:3"],
        [b"0.5:0:zero", b"0.25:1:one", b"0.125:2:two"],
    ]


def test_a_stream_answers_in_order_and_outlives_a_failure(client: Any) -> None:
    answers: Queue[str] = Queue()
    client.start_stream(lambda result, error: answers.put(answer_to(result, error)), stream_timeout=60)
    x = np.ones((1, 2), np.float32)
    for place in range(40):
        model = "nobody" if place == 20 else "fp32"
        client.async_stream_infer(model, [tensor(x, "FP32")], request_id=str(place))
    found = [answers.get(timeout=60) for _ in range(40)]
    client.stop_stream()
    assert "There is no model 'nobody'" in found.pop(20)
    assert found == [str(place) for place in range(40) if place != 20]


def test_answers_come_to_callbacks_too(client: Any) -> None:
    answers: Queue[str] = Queue()
    for place in range(20):
        client.async_infer(
            "fp32",
            [tensor(np.ones((1, 2), np.float32), "FP32")],
            lambda result, error: answers.put(answer_to(result, error)),
            request_id=str(place),
            compression_algorithm="gzip",
        )
    assert {answers.get(timeout=60) for _ in range(20)} == {str(place) for place in range(20)}


def test_its_asyncio_client_infers_side_by_side_and_streams(repository: Path, served: Served) -> None:
    x = np.ones((1, 2), np.float32)

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for place in range(20):
            model = "nobody" if place == 10 else "fp32"
            yield {"model_name": model, "inputs": [tensor(x, "FP32")], "request_id": str(place)}

    async def ask(address: str) -> tuple[list[str], list[str]]:
        async with triton_aio.InferenceServerClient(address) as client:
            calls = (client.infer("fp32", [tensor(x, "FP32")], request_id=str(n)) for n in range(20))
            alone = [answer_to(result, None) for result in await asyncio.gather(*calls)]
            return alone, [answer_to(*each) async for each in client.stream_infer(requests())]

    with served(repository) as address:
        alone, streamed = asyncio.run(ask(address))
    assert alone == [str(place) for place in range(20)]
    assert "There is no model 'nobody'" in streamed.pop(10)
    assert streamed == [str(place) for place in range(20) if place != 10]


@pytest.fixture
def region() -> Iterator[Any]:
    key = f"/test-{uuid4().hex[:12]}"
    handle = shm.create_shared_memory_region("region", key, 64)
    yield handle, key
    shm.destroy_shared_memory_region(handle)


def test_tensors_come_and_go_through_shared_memory(client: Any, region: Any) -> None:
    handle, key = region
    x = np.array([[1, 2], [3, 4]], np.float32)
    shm.set_shared_memory_region(handle, [x], offset=8)
    client.register_system_shared_memory("both", key, 64)
    assert client.get_system_shared_memory_status("both").regions["both"].byte_size == 64
    given = triton.InferInput("x", [2, 2], "FP32")
    given.set_shared_memory("both", 16, offset=8)
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("both", 16, offset=40)
    result = client.infer("fp32", [given], outputs=[wanted])
    output = result.get_output("y")
    assert (output.datatype, list(output.shape)) == ("FP32", [2, 2])
    np.testing.assert_array_equal(shm.get_contents_as_numpy(handle, np.float32, [2, 2], offset=40), x)
    client.unregister_system_shared_memory("both")
    assert not client.get_system_shared_memory_status().regions


def test_a_region_too_small_for_an_output_is_told_the_bytes(client: Any, region: Any) -> None:
    client.register_system_shared_memory("small", region[1], 64)
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("small", 4)
    with pytest.raises(InferenceServerException, match="takes 8 bytes, and 4 were given") as caught:
        client.infer("fp32", [tensor(np.ones((1, 2), np.float32), "FP32")], outputs=[wanted])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    client.unregister_system_shared_memory()


def test_shared_memory_is_off_unless_switched_on(plain: Any, region: Any) -> None:
    with pytest.raises(InferenceServerException, match="--shared-memory") as caught:
        plain.register_system_shared_memory("region", region[1], 64)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "system_shared_memory" not in plain.get_server_metadata().extensions


def test_cuda_shared_memory_is_refused_in_a_sentence(client: Any) -> None:
    for call in (
        lambda: client.register_cuda_shared_memory("region", b"", 0, 64),
        client.get_cuda_shared_memory_status,
        lambda: client.unregister_cuda_shared_memory("region"),
    ):
        with pytest.raises(InferenceServerException, match="no CUDA shared memory") as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_client_may_forget_all_regions_of_both_kinds_before_it_begins(client: Any) -> None:
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()


def test_requests_are_traced_as_long_as_asked_for(client: Any, traces: Path) -> None:
    file = f"{uuid4().hex}.json"
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2", "trace_file": file}
    answer = client.update_trace_settings("fp32", settings=settings)
    assert answer.settings["trace_rate"].value == ["2"]
    for _ in range(6):
        client.infer("fp32", [tensor(np.ones((1, 2), np.float32), "FP32")])
    assert client.get_trace_settings("fp32").settings["trace_count"].value == ["0"]
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
    cleared = dict.fromkeys(settings)
    assert client.update_trace_settings("fp32", settings=cleared).settings["trace_rate"].value == ["1000"]
    traced = wait_for_json(traces / file, 2 * 8)
    assert [each["model_name"] for each in traced if "model_name" in each] == ["fp32", "fp32"]
    stamps = [each["timestamps"][0] for each in traced if "timestamps" in each]
    assert [stamp["name"] for stamp in stamps[:2]] == ["REQUEST_START", "QUEUE_START"]
    assert [stamp["ns"] for stamp in stamps[:7]] == sorted(stamp["ns"] for stamp in stamps[:7])


def wait_for_json(path: Path, length: int) -> list[Any]:
    """Read a file that another thread is about to finish."""
    import time

    until = time.monotonic() + 30
    while time.monotonic() < until:
        if path.exists() and len(found := json.loads(path.read_text() or "[]")) >= length:
            return list(found)
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written")


def test_nothing_is_traced_without_a_folder(plain: Any) -> None:
    with pytest.raises(InferenceServerException, match="--trace-folder") as caught:
        plain.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    assert caught.value.status() == "StatusCode.FAILED_PRECONDITION"
    assert plain.get_trace_settings().settings["trace_level"].value == ["OFF"]
    assert "trace" in plain.get_server_metadata().extensions


def test_what_is_logged_can_be_changed(client: Any) -> None:
    usual = logging.getLogger("flyweight").level
    answer = client.update_log_settings({"log_verbose_level": 1, "log_info": False})
    assert answer.settings["log_verbose_level"].uint32_param == 1
    assert not client.get_log_settings().settings["log_info"].bool_param
    assert logging.getLogger("flyweight").isEnabledFor(logging.DEBUG)
    client.update_log_settings({"log_verbose_level": 0, "log_info": True})
    assert logging.getLogger("flyweight").level == usual


def test_the_file_of_the_log_is_not_a_callers_choice(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="log_file") as caught:
        client.update_log_settings({"log_file": "/tmp/anything"})
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_the_server_tells_the_extensions_that_it_has(client: Any) -> None:
    extensions = set(client.get_server_metadata().extensions)
    assert {"classification", "logging", "parameters", "system_shared_memory", "trace"} <= extensions
    assert "cuda_shared_memory" not in extensions


def test_with_compat_the_words_are_tritons(repository: Path, served: Served) -> None:
    given = triton.InferInput("x", [1, 2], "FP32")
    given.set_shared_memory("nowhere", 8)
    with (
        served(repository, shared_memory=True, compat=Compat.TRITON) as address,
        triton.InferenceServerClient(address) as compatible,
        pytest.raises(InferenceServerException) as caught,
    ):
        compatible.infer("fp32", [given])
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    assert caught.value.message() == "Unable to find shared memory region: 'nowhere'"
