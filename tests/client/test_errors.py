"""Status codes become errors, and errors are sentences."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import numpy as np
import pytest

from flyweight.client import Client, ClientError, RetryPolicy, Settings, Unavailable, errors
from flyweight.client.testing import FakeServer, Fault
from flyweight.protos.errors import FlyweightError

ONCE = Settings(retry=RetryPolicy(max_attempts=1))
X = {"x": np.zeros(1)}

EXPECTED = {
    "CANCELLED": errors.Cancelled,
    "UNKNOWN": errors.ServerFault,
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.Refused,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "FAILED_PRECONDITION": errors.Refused,
    "ABORTED": errors.Refused,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "UNIMPLEMENTED": errors.Unsupported,
    "INTERNAL": errors.ServerFault,
    "UNAVAILABLE": errors.Unavailable,
    "DATA_LOSS": errors.ServerFault,
    "UNAUTHENTICATED": errors.Unauthenticated,
}


def test_every_status_code_but_ok_is_expected() -> None:
    assert EXPECTED.keys() == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize(("code", "error"), EXPECTED.items())
def test_a_status_code_becomes_its_error(fake: FakeServer, code: str, error: type[ClientError]) -> None:
    fake.fail(Fault(code, "the words of the server."))
    with Client(fake.address, ONCE) as client, pytest.raises(error) as caught:
        client.predict("digits", X)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.details) == (code, "the words of the server.")


def test_the_sentence_names_the_target_the_call_the_reason_and_the_code(call: Any, fake: FakeServer) -> None:
    fake.fail(Fault("NOT_FOUND", "there is no such thing."))
    with pytest.raises(ClientError) as caught:
        call(fake.address, "predict", "digits", X, variant="int8")
    assert str(caught.value) == (
        f"model 'digits', variant 'int8' at {fake.address} did not answer ModelInfer: there is no such thing "
        "(NOT_FOUND)."
    )


def test_a_server_that_is_not_there_is_named_by_its_address(call: Any) -> None:
    with pytest.raises(Unavailable, match=r"nobody answers at 127\.0\.0\.1:1 "):
        call("127.0.0.1:1", "server", settings=ONCE)


def test_a_metrics_port_is_told_from_a_grpc_port(call: Any) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(Unavailable, match="speaks HTTP/1 and no gRPC"):
                call(f"127.0.0.1:{server.server_port}", "server", settings=ONCE)
        finally:
            server.shutdown()
            thread.join()


def test_a_response_that_contradicts_itself_is_no_answer(
    call: Any, fake: FakeServer, monkeypatch: Any
) -> None:
    def forget_contents(response: Any, arrays: Any) -> None:
        response.outputs.add(name="y", datatype="FP32", shape=[2])
        response.raw_output_contents.append(b"\0")

    monkeypatch.setattr("flyweight.client.testing.answers.encode_outputs", forget_contents)
    with pytest.raises(errors.InvalidResponse, match="'y'"):
        call(fake.address, "predict", "echo", X)


def test_the_tree_in_the_module_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    assert drawn == [
        kind.__name__ for kind in ClientError.__subclasses__() if kind.__module__ == errors.__name__
    ]
    assert issubclass(ClientError, FlyweightError)
