"""Stock tritonclient against a real server process."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

pytestmark = pytest.mark.system

X = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def tensor(array: np.ndarray[Any, Any] = X, name: str = "x") -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


@pytest.fixture
def client(start_server: Callable[..., Any], server_repository: Path) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(start_server(server_repository).address)


def test_gets_metadata_configuration_and_readiness(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "int8")
    assert not client.is_model_ready("tiny", "int4")
    assert client.get_server_metadata().name == "flyweight"
    for version in ("", "int8"):
        metadata = client.get_model_metadata("tiny", version)
        assert [(x.name, x.datatype, list(x.shape)) for x in metadata.inputs] == [("x", "FP32", [-1, 4])]
        assert list(metadata.versions) == ["baseline", "int8"]
        config = client.get_model_config("tiny", version).config
        assert [(x.name, list(x.dims)) for x in config.input] == [("x", [4])]


def test_gets_predictions_from_the_split_without_a_version(client: triton.InferenceServerClient) -> None:
    answers: Counter[str] = Counter()
    for number in range(60):
        result = client.infer("tiny", [tensor()], request_id=str(number))
        response = result.get_response()
        scale = {"baseline": 2, "int8": 3}[response.model_version]
        np.testing.assert_array_equal(result.as_numpy("y"), X * scale)
        assert response.id == str(number)
        assert response.parameters["flyweight_variant"].string_param == response.model_version
        assert response.parameters["flyweight_reason"].string_param == "split"
        answers[response.model_version] += 1
    # Either missing by chance: once in 2^59 runs.
    assert set(answers) == {"baseline", "int8"}


def test_gets_predictions_from_the_variant_it_names(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("y")]
    result = client.infer("tiny", [tensor()], model_version="int8", outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("y"), X * 3)
    assert result.get_response().parameters["flyweight_role"].string_param == "pinned"


def test_stays_on_one_variant_with_a_key(client: triton.InferenceServerClient) -> None:
    for user in range(10):
        by_parameter = [
            client.infer("tiny", [tensor()], parameters={"flyweight_key": str(user)}) for _ in range(3)
        ]
        by_metadata = client.infer("tiny", [tensor()], headers={"flyweight-key": str(user)})
        answered = {result.get_response().model_version for result in [*by_parameter, by_metadata]}
        assert len(answered) == 1


def test_reads_statistics_and_the_index(client: triton.InferenceServerClient) -> None:
    client.infer("tiny", [tensor()], model_version="int8")
    (stats,) = client.get_inference_statistics("tiny", "int8").model_stats
    assert (stats.inference_count, stats.inference_stats.success.count) == (2, 1)
    index = client.get_model_repository_index()
    assert [(m.name, m.version, m.state) for m in index.models] == [
        ("tiny", "baseline", "READY"),
        ("tiny", "int8", "READY"),
    ]


def test_unloads_and_loads_a_model(client: triton.InferenceServerClient) -> None:
    client.unload_model("tiny")
    assert not client.is_model_ready("tiny")
    client.load_model("tiny")
    assert client.is_model_ready("tiny")
    client.infer("tiny", [tensor()])


# What is asked, the status it gets, and the name in the sentence.
MISTAKES: tuple[tuple[Callable[[Any], Any], str, str], ...] = (
    (lambda c: c.infer("nothing", [tensor()]), "NOT_FOUND", "'nothing'"),
    (lambda c: c.infer("tiny", [tensor()], model_version="int4"), "NOT_FOUND", "'int4'"),
    (lambda c: c.infer("tiny", [tensor(name="z")]), "INVALID_ARGUMENT", "'z'"),
    (lambda c: c.infer("tiny", [tensor(X[:, :3])]), "INVALID_ARGUMENT", "'x'"),
    (
        lambda c: c.infer("tiny", [tensor()], outputs=[triton.InferRequestedOutput("q")]),
        "INVALID_ARGUMENT",
        "'q'",
    ),
    (lambda c: c.register_system_shared_memory("r", "/k", 8), "UNIMPLEMENTED", "shared memory"),
)


def test_mistakes_get_the_right_status_with_the_name(client: triton.InferenceServerClient) -> None:
    for ask, code, name in MISTAKES:
        with pytest.raises(triton.InferenceServerException) as caught:
            ask(client)
        assert caught.value.status() == f"StatusCode.{code}"
        assert name in caught.value.message()
