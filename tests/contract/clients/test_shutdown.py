"""A server that ends under load, beside another: whoever sends again what was not taken loses no call."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.server.app import Server, Started
from tests.contract.clients.conversation import PATIENCE_SECONDS
from tests.contract.clients.envoy import find_envoy, proxied
from tests.contract.clients.loads import WARM_ANSWERS, Heard, Load, by_grpc_aio, by_grpcio, by_node
from tests.contract.clients.over_node import find_node

pytestmark = pytest.mark.system

Serve = Callable[[], tuple[Server, Started]]


def body() -> bytes:
    request = ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.ones(1, np.float32).tobytes())
    return request.SerializeToString()


def end_one_of(two: list[tuple[Server, Started]], targets: list[str], load: Load) -> Heard:
    """End the first of two servers under load from clients that know `targets`; return what these heard."""
    heard, is_over = Heard(), threading.Event()
    thread = threading.Thread(target=load, args=(targets, body(), heard, is_over))
    thread.start()
    try:
        heard.await_more(WARM_ANSWERS)
        two[0][0].stop()
        heard.await_more(WARM_ANSWERS)
    finally:
        is_over.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return heard


@pytest.fixture
def two(serve: Serve) -> list[tuple[Server, Started]]:
    return [serve(), serve()]


@pytest.mark.parametrize("client", ["grpcio", "grpc.aio", "node"])
def test_clients_that_balance_and_retry_lose_no_call(
    two: list[tuple[Server, Started]], client: str, transport: str
) -> None:
    if (client, transport) == ("node", "grpcio"):
        pytest.skip("gRPC's core cuts connections with INTERNAL_ERROR, after which grpc-js asks nobody else")
    load: Load = {"grpcio": by_grpcio, "grpc.aio": by_grpc_aio}.get(client) or by_node(find_node())
    assert end_one_of(two, [started.address for _, started in two], load).failures == []


def test_a_proxy_that_balances_and_retries_loses_no_call(
    two: list[tuple[Server, Started]], tmp_path: Path
) -> None:
    servers = [started.address for _, started in two]
    with proxied(find_envoy(), [servers], tmp_path) as targets:
        assert end_one_of(two, targets, by_grpcio).failures == []
