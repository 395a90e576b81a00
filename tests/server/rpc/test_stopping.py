"""How the carrier stops: who is answered, who is sent elsewhere, and what is left behind."""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.rpc import carrier
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.settings import ServerSettings, Transport

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
LIVE = f"{SERVICE}/ServerLive"
SETTINGS = ServerSettings(Path("unused"), port=0)

Serve = Callable[..., Any]
Poll = Callable[[Callable[[], bool]], None]
MakeRequest = Callable[..., ModelInferRequest]


def stop_aside(served: Any, grace_seconds: float) -> threading.Thread:
    thread = threading.Thread(target=served.carrier.stop, args=(grace_seconds,))
    thread.start()
    return thread


def test_what_is_in_flight_is_answered(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()})
    call = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    stopping = stop_aside(served, PATIENCE_SECONDS)
    if served.transport is Transport.GRPCIO:
        # Newcomers are answered too, as long as somebody is waited for.
        served.call(LIVE)
    else:
        # Clients are asked to go elsewhere, and another server may take the port.
        poll(lambda: can_listen_on(served.port))
    stuck.release.set()
    assert call.code() is grpc.StatusCode.OK
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()


def test_what_is_not_done_in_time_is_cut_as_unavailable(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()})
    call = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    served.carrier.stop(0.05)
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    # The answer comes when there is nobody to send it to.
    stuck.release.set()
    poll(lambda: len(served.bench.notebook.records) == 1)
    assert served.bench.gate.wait_until_empty(PATIENCE_SECONDS)


@pytest.mark.parametrize("path", [INFER, LIVE, f"{SERVICE}/ModelStreamInfer"])
def test_newcomers_are_held_and_end_as_unavailable(
    served: Any, make_request: MakeRequest, poll: Poll, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(carrier, "_GATHER_SECONDS", 0.5)
    served.call(LIVE)
    stopping = stop_aside(served, 1.0)
    poll(lambda: served.carrier._is_holding)
    stream = served.stream(path, iter([make_request().SerializeToString()]))
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    stopping.join(PATIENCE_SECONDS)
    assert served.bench.notebook.records == []


def test_in_a_rush_everybody_is_answered_or_sent_elsewhere(serve: Serve, make_request: MakeRequest) -> None:
    served = serve()
    body = make_request().SerializeToString()
    codes: Counter[grpc.StatusCode] = Counter()
    lock, many = threading.Lock(), threading.Semaphore(0)

    def rush() -> None:
        with served.connect() as channel:
            infer = channel.unary_unary(INFER)
            while True:
                code = infer.future(body, timeout=PATIENCE_SECONDS).code()
                with lock:
                    codes[code] += 1
                many.release()
                if code is grpc.StatusCode.UNAVAILABLE:
                    return

    callers = [threading.Thread(target=rush) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(100):
        assert many.acquire(timeout=PATIENCE_SECONDS)
    served.carrier.stop(1.0)
    for caller in callers:
        caller.join(PATIENCE_SECONDS)
    assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert codes[grpc.StatusCode.UNAVAILABLE] == 4


def test_stopping_twice_is_harmless(served: Any) -> None:
    served.call(LIVE)
    served.carrier.stop(1.0)
    served.carrier.stop(1.0)


def can_listen_on(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def test_a_stopped_carrier_gives_its_port_back(served: Any) -> None:
    served.call(LIVE)
    served.carrier.stop(0)
    assert can_listen_on(served.port)


@pytest.mark.parametrize("bound", [True, False])
def test_it_may_be_stopped_before_it_is_started(bound: bool) -> None:
    carrier = Carrier(SETTINGS, [], Scheduler(1))
    port = carrier.bind() if bound else 0
    carrier.stop(1.0)
    assert can_listen_on(port)


def test_it_may_be_stopped_after_it_could_not_bind(served: Any) -> None:
    carrier = Carrier(replace(SETTINGS, port=served.port), [], Scheduler(1))
    with pytest.raises(Exception, match="cannot be listened on"):
        carrier.bind()
    carrier.stop(0)
    served.call(LIVE)


def test_no_thread_is_left_behind(
    build: Callable[..., Any], serve: Serve, make_request: MakeRequest, poll: Poll
) -> None:
    before = set(threading.enumerate())
    served = serve()
    served.call(INFER, make_request().SerializeToString())
    load = pb.RepositoryModelLoadRequest(model_name="tiny").SerializeToString()
    served.call(f"{SERVICE}/RepositoryModelLoad", load)
    ours = {
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("rpc", "run-"))
    }
    assert {thread.name.split("-")[0] for thread in ours} == {"rpc", "run"}
    served.carrier.stop(1.0)
    served.bench.scheduler.stop()
    poll(lambda: not any(thread.is_alive() for thread in ours))


def test_streams_that_never_end_are_cut(served: Any, poll: Poll) -> None:
    watch = served.stream("/grpc.health.v1.Health/Watch", iter([b""]))
    next(watch)
    served.carrier.stop(0.05)
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert not served.health._watches
    assert not served.carrier._open
