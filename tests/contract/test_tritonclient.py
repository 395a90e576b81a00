"""Stock `tritonclient` against our fake server: it speaks the public protocol, not a dialect of ours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from flyweight.client import TensorInfo
from flyweight.client.testing import FakeModel, FakeServer, serve_fake

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    model = FakeModel(
        variants={"baseline": lambda i: {"y": i["x"] + 1}, "int8": lambda i: {"y": i["x"] + 2}},
        inputs=(TensorInfo("x", "FP32", (-1, 3)),),
        outputs=(TensorInfo("y", "FP32", (-1, 3)),),
    )
    with serve_fake({"m": model, "echo": dict}) as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer) -> Iterator[Any]:
    found = triton.InferenceServerClient(server.address)
    yield found
    found.close()


def tensor(name: str, array: Any, datatype: str) -> Any:
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "int8")


def test_metadata_and_configuration(client: Any) -> None:
    metadata = client.get_model_metadata("m")
    assert list(metadata.versions) == ["baseline", "int8"]
    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("x", [-1, 3])
    assert client.get_model_config("m").config.name == "m"
    assert client.get_server_metadata().name == "flyweight-fake"


def test_inference_with_and_without_a_version(client: Any) -> None:
    free = client.infer("m", [tensor("x", X, "FP32")], request_id="r1")
    pinned = client.infer("m", [tensor("x", X, "FP32")], model_version="int8")
    assert np.array_equal(free.as_numpy("y"), X + 1)
    assert np.array_equal(pinned.as_numpy("y"), X + 2)
    assert (free.get_response().id, free.get_response().model_version) == ("r1", "baseline")
    assert pinned.get_response().parameters["flyweight_variant"].string_param == "int8"


def test_bytes_and_booleans(client: Any) -> None:
    words = np.array(["é", b"b\0"], dtype=object)
    flags = np.array([True, False])
    answer = client.infer("echo", [tensor("w", words, "BYTES"), tensor("f", flags, "BOOL")])
    assert answer.as_numpy("w").tolist() == ["é".encode(), b"b\0"]
    assert answer.as_numpy("f").tolist() == [True, False]


def test_repository_and_statistics(client: Any) -> None:
    client.infer("m", [tensor("x", X, "FP32")])
    assert {
        (entry.name, entry.version, entry.state) for entry in client.get_model_repository_index().models
    } == {
        ("m", "baseline", "READY"),
        ("m", "int8", "READY"),
        ("echo", "baseline", "READY"),
    }
    assert client.get_inference_statistics("m").model_stats[0].inference_count == 1
    client.unload_model("m")
    assert not client.is_model_ready("m")
    client.load_model("m")
    assert client.is_model_ready("m")


def test_errors_have_their_status(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nobody'") as caught:
        client.infer("nobody", [tensor("x", X, "FP32")])
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_its_asyncio_client_works_as_well(server: FakeServer) -> None:
    import asyncio

    async def run() -> Any:
        async with triton_aio.InferenceServerClient(server.address) as client:
            return (await client.infer("m", [tensor("x", X, "FP32")])).as_numpy("y")

    assert np.array_equal(asyncio.run(run()), X + 1)
