"""The server put together, in this process, over fake runtimes."""

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ServerReadyResponse
from flyweight.protos.tensors import encode_inputs
from flyweight.server.app import Server, Started
from flyweight.server.errors import Draining, LoadFailed, StartError
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.settings import ServerSettings, Transport

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture
def settings(tmp_path: Path, transport: str) -> ServerSettings:
    for variant in ("1", "2"):
        folder = tmp_path / "tiny" / variant
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"fake")
    return ServerSettings(
        tmp_path,
        port=0,
        metrics_port=0,
        poll_seconds=0.01,
        drain_seconds=PATIENCE_SECONDS,
        transport=Transport(transport),
    )


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Server, Started]]]:
    running: list[Server] = []

    def begin(settings: ServerSettings, factory: FakeFactory | None = None) -> tuple[Server, Started]:
        server = Server(settings, factory or FakeFactory())
        running.append(server)
        return server, server.start()

    yield begin
    for server in running:
        server.stop(at_once=True)


def infer(address: str) -> Any:
    request = ModelInferRequest(model_name="tiny")
    encode_inputs(request, {"x": np.ones((1, 4), np.float32)})
    channel = grpc.insecure_channel(address)
    return channel, channel.unary_unary(f"{SERVICE}/ModelInfer").future(
        request.SerializeToString(), timeout=PATIENCE_SECONDS
    )


def test_the_ready_line_is_what_scripts_wait_for() -> None:
    started = Started("127.0.0.1:8001", "http://127.0.0.1:8002/metrics", 1, 3)
    assert str(started) == (
        "flyweight ready grpc=127.0.0.1:8001 metrics=http://127.0.0.1:8002/metrics models=1 variants=3"
    )


def test_serves_what_is_there_and_stops_clean(
    settings: ServerSettings, start: Callable[..., tuple[Server, Started]]
) -> None:
    server, started = start(settings)
    assert started.models == 1
    channel, call = infer(started.address)
    assert call.code() is grpc.StatusCode.OK
    channel.close()
    assert server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def probe(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE_SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_is_live_but_not_ready_while_it_loads(settings: ServerSettings) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def make(_: Path) -> FakeRuntime:
        loading.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return FakeRuntime()

    port, metrics_port = free_port(), free_port()
    server = Server(replace(settings, port=port, metrics_port=metrics_port), FakeFactory(make))
    starting = threading.Thread(target=server.start)
    starting.start()
    assert loading.wait(PATIENCE_SECONDS)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:

        def ask(rpc: str) -> bytes:
            call = channel.unary_unary(f"{SERVICE}/{rpc}")
            return call(b"", timeout=PATIENCE_SECONDS, wait_for_ready=True)

        ask("ServerLive")
        assert not ServerReadyResponse.FromString(ask("ServerReady")).ready
        assert [probe(metrics_port, path) for path in ("healthz", "readyz")] == [200, 503]
        early_channel, early = infer(f"127.0.0.1:{port}")
        assert early.code() is grpc.StatusCode.UNAVAILABLE
        go_on.set()
        starting.join(PATIENCE_SECONDS)
        assert ServerReadyResponse.FromString(ask("ServerReady")).ready
        assert [probe(metrics_port, path) for path in ("healthz", "readyz")] == [200, 200]
    early_channel.close()
    server.stop(at_once=True)


def await_closed(server: Server) -> None:
    """Wait until a server that is stopping accepts nothing more."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        try:
            server._gate.enter()
        except Draining:
            return
        server._gate.leave()
    raise AssertionError("The server did not begin to stop.")


def test_a_request_in_flight_is_answered_before_the_server_ends(
    settings: ServerSettings, start: Callable[..., tuple[Server, Started]]
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slowly(inputs: Any) -> dict[str, Any]:
        if (inputs["x"] == 1).all():
            entered.set()
            assert go_on.wait(PATIENCE_SECONDS)
        return {"y": inputs["x"]}

    server, started = start(settings, FakeFactory(lambda _: FakeRuntime(function=slowly)))
    channel, call = infer(started.address)
    assert entered.wait(PATIENCE_SECONDS)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    await_closed(server)
    late_channel, late = infer(started.address)
    assert late.code() is grpc.StatusCode.UNAVAILABLE
    go_on.set()
    assert call.code() is grpc.StatusCode.OK
    stopping.join(PATIENCE_SECONDS)
    for each in (channel, late_channel):
        each.close()


def test_a_missing_repository_is_told(settings: ServerSettings, tmp_path: Path) -> None:
    server = Server(replace(settings, repository=tmp_path / "nowhere"), FakeFactory())
    with pytest.raises(RepositoryError, match="nowhere"):
        server.start()
    server.stop(at_once=True)


def test_a_port_in_use_is_told_before_anything_is_loaded(
    settings: ServerSettings, start: Callable[..., tuple[Server, Started]]
) -> None:
    _, started = start(settings)
    factory = FakeFactory()
    port = int(started.address.rpartition(":")[2])
    with pytest.raises(StartError, match=str(port)):
        start(replace(settings, port=port), factory)
    assert factory.made == []


def test_strict_refuses_a_faulty_repository(
    settings: ServerSettings, start: Callable[..., tuple[Server, Started]]
) -> None:
    (settings.repository / "tiny" / "2" / "model.onnx").write_bytes(b"broken by hand")
    with pytest.raises(LoadFailed, match=r"tiny/2: .*broken by hand"):
        start(replace(settings, strict=True))
