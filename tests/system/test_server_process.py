"""A real server process: how it starts, how it stops, what it does when there is too much to do."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import encode_inputs

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 60
# Tens of milliseconds a run here, and far too long to end before a signal is sent.
A_WHILE, VERY_LONG = 20_000, 50_000_000
IN_FLIGHT = 'flyweight_requests_in_flight{model="slow",role="baseline",variant="1"}'
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Caller:
    """Asks "slow" for n multiplications, without waiting for the answer."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def ask(self, times: int) -> Any:
        request = ModelInferRequest(model_name="slow")
        encode_inputs(request, {"x": np.ones((1, 256), np.float32), "n": np.array([times], np.int64)})
        infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return infer.future(request.SerializeToString(), timeout=PATIENCE_SECONDS)

    def watch(self) -> Any:
        return self.health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)


@pytest.fixture
def call() -> Iterator[Callable[[str], Caller]]:
    callers: list[Caller] = []

    def connect(address: str) -> Caller:
        callers.append(Caller(address))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.channel.close()


def test_says_when_it_is_ready_and_what_it_serves(
    start_server: Callable[..., Any], server_repository: Path
) -> None:
    server = start_server(server_repository)
    assert server.counts == (1, 2)
    assert server.scrape()['flyweight_variant_ready{model="tiny",variant="int8"}'] == 1


def answered(seen: dict[str, float]) -> float:
    return sum(value for name, value in seen.items() if name.startswith("flyweight_requests_total"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_what_was_accepted(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller], number: int
) -> None:
    server = start_server(slow_repository, "--max-running", "1")
    caller = call(server.address)
    watch = caller.watch()
    assert next(watch).status == SERVING
    accepted = [caller.ask(A_WHILE) for _ in range(6)]
    # All six are inside before the signal, or answered already.
    server.await_metric(lambda seen: seen.get(IN_FLIGHT, 0) + answered(seen) == 6)
    server.signal(number)
    assert next(watch).status == NOT_SERVING
    for future in accepted:
        assert ModelInferResponse.FromString(future.result()).model_version == "1"
    assert server.wait() == 0
    assert "Traceback" not in server.log.read_text()


def test_what_comes_while_it_drains_is_sent_elsewhere(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller]
) -> None:
    server = start_server(slow_repository, "--drain-seconds", "60")
    caller = call(server.address)
    watch = caller.watch()
    assert next(watch).status == SERVING
    # Without an end, so that the server is still draining however slow this machine is.
    endless = caller.ask(VERY_LONG)
    server.await_metric(lambda seen: seen.get(IN_FLIGHT, 0) == 1)
    server.signal()
    assert next(watch).status == NOT_SERVING
    # Health is told first: until the gate closes, a moment later, requests are answered as before.
    while (code := caller.ask(1).code()) is grpc.StatusCode.OK:
        pass
    assert code is grpc.StatusCode.UNAVAILABLE
    assert not endless.done()
    server.signal()
    assert server.wait() == 1


def test_a_second_signal_stops_at_once(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller]
) -> None:
    server = start_server(slow_repository)
    caller = call(server.address)
    watch = caller.watch()
    assert next(watch).status == SERVING
    lost = caller.ask(VERY_LONG)
    server.await_metric(lambda seen: seen.get(IN_FLIGHT, 0) == 1)
    server.signal()
    assert next(watch).status == NOT_SERVING
    server.signal()
    assert server.wait() == 1
    assert lost.code() is grpc.StatusCode.UNAVAILABLE


def test_a_run_without_end_does_not_outlive_the_drain(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller]
) -> None:
    server = start_server(slow_repository, "--drain-seconds", "0.1")
    caller = call(server.address)
    lost = caller.ask(VERY_LONG)
    server.await_metric(lambda seen: seen.get(IN_FLIGHT, 0) == 1)
    server.signal()
    assert server.wait() == 1
    assert "1 requests were not done in 0.1 s" in server.log.read_text()
    assert lost.code() is not grpc.StatusCode.OK


def test_overload_is_refused_with_push_back_while_health_answers(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller]
) -> None:
    server = start_server(slow_repository, "--max-in-flight", "2", "--max-running", "1")
    caller = call(server.address)
    # Without an end, so that there is no room however slow this machine is.
    accepted = [caller.ask(VERY_LONG) for _ in range(2)]
    server.await_metric(lambda seen: seen.get(IN_FLIGHT, 0) == 2)
    refused = [caller.ask(1) for _ in range(50)]
    for future in refused:
        assert future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(future.trailing_metadata())["grpc-retry-pushback-ms"] == "100"
    answer = caller.health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
    assert answer.status == SERVING
    assert server.scrape()['flyweight_requests_rejected_total{model="slow",reason="queue_full"}'] == 50
    assert not any(future.done() for future in accepted)


def one_sentence(server: Any, code: int = 2) -> str:
    """Wait for a server that cannot start, and return what it says."""
    assert server.wait() == code
    said = server.log.read_text().splitlines()
    errors = [line for line in said if line.startswith("flyweight: error: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in "".join(said)
    assert server.process.stdout.read() == ""
    return errors[0]


@pytest.mark.parametrize(("which", "option"), [("address", "--port"), ("metrics", "--metrics-port")])
def test_a_port_in_use_is_told_and_the_other_server_goes_on(
    start_server: Callable[..., Any], server_repository: Path, which: str, option: str
) -> None:
    first = start_server(server_repository)
    port = getattr(first, which).removesuffix("/metrics").rpartition(":")[2]
    other = "--metrics-port" if option == "--port" else "--port"
    second = start_server(server_repository, ready=False, ports=(option, port, other, "0"))
    sentence = one_sentence(second)
    assert f"127.0.0.1:{port}" in sentence
    assert option in sentence
    assert first.scrape()
    assert first.process.poll() is None


def test_a_missing_repository_is_told(start_server: Callable[..., Any], tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in one_sentence(start_server(tmp_path / "nowhere", ready=False))


def test_an_empty_repository_is_served_with_a_warning(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    server = start_server(tmp_path / "empty")
    assert server.counts == (0, 0)
    assert "holds no model" in server.log.read_text()


def test_strict_does_not_start_over_a_fault(
    start_server: Callable[..., Any], server_repository: Path
) -> None:
    (server_repository / "tiny" / "int8" / "model.onnx").write_bytes(b"not a model")
    assert "tiny/int8" in one_sentence(start_server(server_repository, "--strict", ready=False))
    assert start_server(server_repository).counts == (1, 1)


def test_logs_can_be_json(start_server: Callable[..., Any], server_repository: Path) -> None:
    server = start_server(server_repository, "--log-format", "json")
    server.signal()
    assert server.wait() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()


def test_requests_that_never_pause_see_nothing_but_unavailable_when_the_server_ends(
    start_server: Callable[..., Any], slow_repository: Path, call: Callable[[str], Caller]
) -> None:
    """Such as CANCELLED, which grpcio says to whom it has not got to, and which nobody sends again."""
    server = start_server(slow_repository)
    seen: list[grpc.StatusCode] = []

    def ask_again_and_again(caller: Caller) -> None:
        for _ in range(100_000):
            code = caller.ask(1).code()
            seen.append(code)
            if code is grpc.StatusCode.UNAVAILABLE and server.process.poll() is not None:
                return

    threads = [threading.Thread(target=ask_again_and_again, args=(call(server.address),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.await_metric(lambda samples: answered(samples) > 50)
    server.signal()
    assert server.wait() == 0
    for thread in threads:
        thread.join()
    assert set(seen) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
