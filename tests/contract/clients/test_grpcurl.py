"""grpcurl (Go): the contracts by reflection, calls and streams as JSON, codes, metadata, deadlines."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flyweight.server.app import Started
from tests.contract.clients.programs import find, run

pytestmark = pytest.mark.system

INFERENCE = "inference.GRPCInferenceService"
MEGABYTE = 1 << 20


class Grpcurl:
    """The program, and the server that it asks."""

    def __init__(self, path: str, address: str) -> None:
        self._path = path
        self._address = address

    def __call__(self, *arguments: str, given: object = ()) -> list[Any]:
        """Return the messages that it printed, if it ended well."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, done.stderr.decode()
        return list(documents(done.stdout.decode()))

    def run(self, *arguments: str, given: object = ()) -> Any:
        *options, symbol = arguments
        messages = given if isinstance(given, list) else [given or {}]
        text = "\n".join(json.dumps(message) for message in messages).encode()
        command = [self._path, "-plaintext", "-max-msg-sz", str(16 * MEGABYTE), "-d", "@", *options]
        return run(*command, self._address, symbol, given=text)


def documents(text: str) -> Iterator[Any]:
    """Yield the JSON documents that stand one after the other in a text."""
    decoder, text = json.JSONDecoder(), text.lstrip()
    while text:
        document, at = decoder.raw_decode(text)
        yield document
        text = text[at:].lstrip()


@pytest.fixture(scope="module")
def grpcurl(started: Started) -> Grpcurl:
    return Grpcurl(find("grpcurl", "FLYWEIGHT_GRPCURL", "grpcurl"), started.address)


def request_of(values: np.ndarray[Any, np.dtype[np.float32]], identity: str = "") -> dict[str, Any]:
    return {
        "model_name": "double",
        "id": identity,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, len(values)]}],
        "raw_input_contents": [base64.b64encode(values.tobytes()).decode()],
    }


def floats(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)


def values_of(answer: Any) -> list[float]:
    raw = base64.b64decode(answer["raw_output_contents"][0])
    found: list[float] = np.frombuffer(raw, np.float32).tolist()
    return found


def test_the_contracts_are_known_by_reflection(grpcurl: Grpcurl) -> None:
    done = grpcurl.run("describe")
    assert f"{INFERENCE} is a service" in done.stdout.decode()


def test_an_inference_has_its_answer(grpcurl: Grpcurl) -> None:
    (answer,) = grpcurl(f"{INFERENCE}/ModelInfer", given=request_of(floats(1, 2)))
    assert values_of(answer) == [2, 4]


def test_metadata_reaches_the_server(grpcurl: Grpcurl) -> None:
    headers = ("-H", "flyweight-key: someone", "-H", "trace-bin: AP8=")
    (answer,) = grpcurl(*headers, f"{INFERENCE}/ModelInfer", given=request_of(floats(1)))
    assert values_of(answer) == [2]
    assert answer["parameters"]["flyweight_reason"] == {"string_param": "sticky"}, answer


def test_a_status_comes_with_its_words(grpcurl: Grpcurl) -> None:
    done = grpcurl.run(f"{INFERENCE}/ModelInfer", given={"model_name": "größe-日本"})
    said = done.stderr.decode()
    assert done.returncode != 0
    assert "Code: NotFound" in said
    assert "'größe-日本'" in said


def test_a_stream_is_answered_in_order(grpcurl: Grpcurl) -> None:
    requests = [request_of(floats(value), str(value)) for value in range(20)]
    answers = grpcurl(f"{INFERENCE}/ModelStreamInfer", given=requests)
    heard = [(each["infer_response"]["id"], values_of(each["infer_response"])) for each in answers]
    assert heard == [(str(value), [2 * value]) for value in range(20)]


def test_large_messages_go_both_ways(grpcurl: Grpcurl) -> None:
    (answer,) = grpcurl(f"{INFERENCE}/ModelInfer", given=request_of(np.ones(3 * MEGABYTE // 4, np.float32)))
    assert values_of(answer) == [2] * (3 * MEGABYTE // 4)


def test_a_watch_ends_with_its_deadline(grpcurl: Grpcurl) -> None:
    done = grpcurl.run("-max-time", "0.5", "grpc.health.v1.Health/Watch")
    assert list(documents(done.stdout.decode())) == [{"status": "SERVING"}]
    assert "Code: DeadlineExceeded" in done.stderr.decode()
