"""What every server is asked, and whether its answer is right, seen by a client that reads all of it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.networks import Network
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import encode_inputs

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
SERVICE, METHOD = INFER.strip("/").split("/")
# Answers of another batch or another library differ in the last bits; quantized ones by a step.
_RELATIVE, _ABSOLUTE = 1e-3, 2e-2
_ANSWER_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05
_LONGEST_MESSAGE: Final = 64 << 20


class NotServingError(Exception):
    """The server does not answer, or not what the model answers."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as a load generator sends it.

    Attributes:
        path: of the URL.
        body: of the request, without gRPC's prefix.
        is_grpc: whether it goes over gRPC, else it is a POST over HTTP/1.1.
        expected: the answer's values.
    """

    path: str
    body: bytes
    is_grpc: bool
    expected: NDArray[np.float32]


class Asker(Protocol):
    """Asks a question once."""

    def __call__(self, address: str, question: Question, /) -> int:
        """Return the size of the right answer's message in bytes.

        Raises:
            NotServingError: there was none.
        """
        ...


def grpc_question(network: Network, expected: NDArray[np.float32]) -> Question:
    """Return a ModelInfer of one row, with raw contents."""
    request = ModelInferRequest(model_name=network.name)
    encode_inputs(request, {"x": network.sample()})
    request.outputs.add(name="y")
    return Question(INFER, request.SerializeToString(), is_grpc=True, expected=expected)


def http_question(network: Network, expected: NDArray[np.float32], path: str) -> Question:
    """Return a POST of one row's bytes."""
    return Question(path, network.sample().tobytes(), is_grpc=False, expected=expected)


def ask(address: str, question: Question) -> int:
    """Ask once by a client of its own; return the size of the answer's message in bytes.

    Raises:
        NotServingError: there was no answer, or not the right one.
    """
    return _ask_grpc(address, question) if question.is_grpc else _ask_http(address, question)


def await_answer(
    address: str, question: Question, seconds: float, has_ended: Callable[[], bool] = lambda: False
) -> int:
    """Ask until there is an answer; return its size in bytes.

    Raises:
        NotServingError: there was none in time, or the server is gone.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return ask(address, question)
        except NotServingError as error:
            if has_ended():
                raise NotServingError(f"it ended ({error})") from error
            if time.monotonic() > until:
                raise NotServingError(f"no right answer within {seconds:g} s ({error})") from error
        time.sleep(_LOOK_SECONDS)


def _ask_grpc(address: str, question: Question) -> int:
    options = [("grpc.max_receive_message_length", _LONGEST_MESSAGE), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        try:
            body: bytes = channel.unary_unary(question.path, None, None)(
                question.body, timeout=_ANSWER_SECONDS
            )
        except grpc.RpcError as error:
            raise NotServingError(f"{error.code().name}: {error.details()}") from error
    response = ModelInferResponse.FromString(body)
    if response.raw_output_contents:
        found = np.frombuffer(response.raw_output_contents[0], np.float32)
    else:
        found = np.asarray(response.outputs[0].contents.fp32_contents, np.float32)
    _compare(found, question)
    return len(body)


def _ask_http(address: str, question: Question) -> int:
    request = urllib.request.Request(  # our own
        f"http://{address}{question.path}",
        question.body,
        {"content-type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
            body: bytes = answer.read()
            kind = answer.headers.get_content_type()
    except (OSError, urllib.error.URLError) as error:
        raise NotServingError(str(error)) from error
    found = np.asarray(json.loads(body)) if kind == "application/json" else np.frombuffer(body, np.float32)
    _compare(found, question)
    return len(body)


def _compare(found: NDArray[np.float32], question: Question) -> None:
    expected = question.expected.ravel()
    if found.size != expected.size or not np.allclose(found.ravel(), expected, _RELATIVE, _ABSOLUTE):
        raise NotServingError(f"a wrong answer: {found.ravel()[:3]} in place of {expected[:3]}")
