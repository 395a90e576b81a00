"""The fake server that users write their tests with."""

from typing import Any

import numpy as np
import pytest

from flyweight.client import Client, InvalidRequest, NotFound, RetryPolicy, ServerFault, Settings, Unavailable
from flyweight.client.testing import FakeServer, Fault, serve_fake

X = np.array([[1, 2, 3]], dtype=np.float32)


def test_a_function_is_a_model() -> None:
    with (
        serve_fake({"double": lambda inputs: {"y": inputs["x"] * 2}}) as server,
        Client(server.address) as client,
    ):
        assert client.predict("double", {"x": X}).output.tolist() == [[2, 4, 6]]
        assert server.requests[0].model_name == "double"


def test_it_is_gone_after_the_block() -> None:
    with serve_fake({}) as server, Client(server.address) as client:
        assert client.is_live()
    with Client(server.address, Settings(retry=RetryPolicy(max_attempts=1))) as client:
        assert not client.is_live()


def test_a_port_in_use_is_an_error(fake: FakeServer) -> None:
    with pytest.raises(Unavailable, match="port 0"), serve_fake({}, address=fake.address):
        pass


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"pixels": X.astype(np.float64)}, "FP64"),
        ({"pixels": X[:, :2]}, "shape"),
        ({"pixels": X[0]}, "shape"),
        ({"other": X}, "other"),
    ],
    ids=["datatype", "length", "rank", "name"],
)
def test_requests_are_checked_against_the_metadata(fake: FakeServer, inputs: Any, word: str) -> None:
    with Client(fake.address) as client, pytest.raises(InvalidRequest, match=word):
        client.predict("digits", inputs)


def test_unknown_models_variants_and_outputs_are_named(fake: FakeServer) -> None:
    with Client(fake.address) as client:
        with pytest.raises(NotFound, match="'nobody'"):
            client.predict("nobody", {})
        with pytest.raises(NotFound, match="'fp4'"):
            client.predict("digits", {"pixels": X}, variant="fp4")
        with pytest.raises(InvalidRequest, match="'z'"):
            client.predict("digits", {"pixels": X}, outputs=["z"])


def test_a_value_error_of_a_function_is_the_callers_fault_and_others_are_not() -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("too long")

    def crash(_: Any) -> Any:
        raise KeyError("oops")

    with serve_fake({"refuse": refuse, "crash": crash}) as server, Client(server.address) as client:
        with pytest.raises(InvalidRequest, match="too long"):
            client.predict("refuse", {})
        with pytest.raises(ServerFault):
            client.predict("crash", {})


def test_a_fault_may_be_for_one_method_only(fake: FakeServer) -> None:
    fake.fail(Fault("INTERNAL", method="ModelInfer"))
    with Client(fake.address) as client:
        assert client.is_live()
        with pytest.raises(ServerFault):
            client.predict("echo", {})
        client.predict("echo", {})
