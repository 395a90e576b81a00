"""The grpcio carrier over a real socket in this process."""

import gc
import socket
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.server.errors import Code
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.method import Streaming
from flyweight.server.rpc.records import Rejection
from flyweight.server.rpc.unsupported import refused_stream
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.settings import ServerSettings

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=4)
ALONE = ServingPolicy(Merging.NEVER, max_rows=8)

Serve = Callable[..., Any]
Poll = Callable[[Callable[[], bool]], None]
MakeRequest = Callable[..., ModelInferRequest]


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


def test_carries_bytes_there_and_back(served: Any, make_request: MakeRequest) -> None:
    body = served.call(INFER, make_request(version="int8").SerializeToString())
    response = ModelInferResponse.FromString(body)
    assert response.model_version == "int8"
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [3, 3, 3, 3]


def test_metadata_reaches_the_plan(served: Any, make_request: MakeRequest) -> None:
    body = served.call(INFER, make_request().SerializeToString(), metadata=(("flyweight-key", "me"),))
    response = ModelInferResponse.FromString(body)
    assert response.parameters["flyweight_reason"].string_param == "sticky"


def test_a_failure_is_a_status_with_a_sentence(served: Any, make_request: MakeRequest) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="int4").SerializeToString())
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'int4'" in sentence


@pytest.mark.parametrize(
    "path",
    [
        "/flyweight.control.v1.ControlService/GetComparison",
        "/flyweight.control.v1.ControlService/StartRollout",
    ],
)
def test_a_declared_rpc_that_is_not_there_is_unimplemented_with_a_sentence(served: Any, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(path)
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert path.rpartition("/")[2] in sentence


def test_a_stream_that_is_not_there_says_so_too(serve: Serve) -> None:
    path = "/flyweight.Other/Talk"
    served = serve(methods=(Streaming(path, refused_stream(path)),))
    with pytest.raises(grpc.RpcError) as caught:
        next(served.stream(path, iter([b""])))
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "Talk" in sentence


def test_a_bug_is_a_bare_internal(serve: Serve, make_request: MakeRequest) -> None:
    def fail(_: object) -> dict[str, Any]:
        raise ZeroDivisionError("an inside of ours")

    served = serve(runtimes={"baseline": FakeRuntime(function=fail), "int8": FakeRuntime()})
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="baseline").SerializeToString())
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.INTERNAL
    assert sentence.startswith("internal error; see the server's log (id ")


def test_a_call_without_a_deadline_has_none(served: Any) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="tiny").SerializeToString()
    served.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")(request)
    assert served.bench.models.patience == [60.0]


def test_overload_is_refused_with_push_back_while_health_and_metadata_answer(
    serve: Serve, make_request: MakeRequest, stuck: Any
) -> None:
    gate = Gate(2)
    gate.open()
    runtimes = {"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()}
    served = serve(runtimes=runtimes, gate=gate, serving=ALONE)
    served.health.serve()
    body = make_request(version="baseline").SerializeToString()
    accepted = [served.future(INFER, body) for _ in range(2)]
    stuck.wait_for(2)
    refused = served.future(INFER, body)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("grpc-retry-pushback-ms", "100") in [tuple(pair) for pair in refused.trailing_metadata()]
    health = health_pb2_grpc.HealthStub(served.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    served.call(f"{SERVICE}/ServerMetadata")
    stuck.release.set()
    for call in accepted:
        assert call.code() is grpc.StatusCode.OK


def test_the_callers_deadline_ends_the_wait_for_a_turn(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    runtime = FakeRuntime()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": runtime}, slots=1)
    first = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="int8").SerializeToString(), timeout=0.05)
    assert status_of(caught.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    # The caller's clock may ring before the server's.
    poll(lambda: served.bench.notebook.records)
    stuck.release.set()
    assert first.code() is grpc.StatusCode.OK
    assert served.bench.gate.wait_until_empty(PATIENCE_SECONDS)
    assert runtime.runs == 0
    late, done = served.bench.notebook.records
    assert (late.rejection, late.code) == (Rejection.DEADLINE, Code.DEADLINE_EXCEEDED)
    assert done.code is Code.OK


def test_a_caller_who_cancels_leaves_the_queue_and_is_not_run(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    runtime = FakeRuntime()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": runtime}, slots=1)
    first = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    gone = served.future(INFER, make_request(version="int8").SerializeToString())
    poll(lambda: served.bench.scheduler.waiting_count == 1)
    gone.cancel()
    poll(lambda: served.bench.scheduler.waiting_count == 0)
    stuck.release.set()
    assert first.code() is grpc.StatusCode.OK
    assert served.bench.gate.wait_until_empty(PATIENCE_SECONDS)
    assert runtime.runs == 0
    assert [record.code for record in served.bench.notebook.records] == [Code.CANCELLED, Code.OK]
    assert served.bench.notebook.held == []


def test_a_connection_that_breaks_cancels_what_waits(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    runtime = FakeRuntime()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": runtime}, slots=1)
    first = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    other = served.connect()
    # Kept: a call that nobody holds is cancelled.
    call = other.unary_unary(INFER).future(make_request(version="int8").SerializeToString())
    poll(lambda: served.bench.scheduler.waiting_count == 1)
    other.close()
    poll(lambda: served.bench.scheduler.waiting_count == 0)
    assert call.code() is grpc.StatusCode.CANCELLED
    stuck.release.set()
    assert first.code() is grpc.StatusCode.OK
    assert runtime.runs == 0


def test_those_who_wait_share_a_run(serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll) -> None:
    runtime = FakeRuntime(scale=3)
    served = serve(
        runtimes={"baseline": FakeRuntime(function=stuck), "int8": runtime},
        slots=1,
        serving=ServingPolicy(Merging.ASKED, max_rows=8),
    )
    first = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    others = [
        served.future(INFER, make_request(rows=rows, version="int8").SerializeToString())
        for rows in (1, 2, 3)
    ]
    poll(lambda: served.bench.scheduler.waiting_count == 3)
    stuck.release.set()
    shapes = [list(ModelInferResponse.FromString(other.result()).outputs[0].shape) for other in others]
    assert shapes == [[1, 4], [2, 4], [3, 4]]
    assert first.code() is grpc.StatusCode.OK
    assert runtime.runs == 1
    shared = [record for record in served.bench.notebook.records if record.batch_requests == 3]
    assert [record.batch_rows for record in shared] == [6, 6, 6]
    assert [record.leads_run for record in shared].count(True) == 1


# --- what is left behind ---


def test_tensors_are_gone_once_the_call_is_over(serve: Serve, make_request: MakeRequest, poll: Poll) -> None:
    """By their reference counts: the collector may not come by for a long time, and tensors are large."""
    kept: list[weakref.ref[Any]] = []

    def remember(inputs: Any) -> dict[str, Any]:
        kept.append(weakref.ref(inputs["x"]))
        return {"y": inputs["x"] + 1}

    served = serve(runtimes={"baseline": FakeRuntime(function=remember), "int8": FakeRuntime()})
    body = make_request(version="baseline").SerializeToString()
    gc.disable()
    try:
        for _ in range(3):
            served.call(INFER, body)
        poll(lambda: all(ref() is None for ref in kept))
        assert len(kept) == 3
    finally:
        gc.enable()


def test_connections_that_come_and_go_leave_no_call_behind(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll
) -> None:
    gate = Gate(1000)
    gate.open()
    served = serve(
        replace(SETTINGS, max_in_flight=1000),
        runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()},
        gate=gate,
        slots=1,
    )
    first = served.future(INFER, make_request(version="baseline").SerializeToString())
    stuck.wait_for()
    body = make_request(version="int8").SerializeToString()
    for place in range(200):
        if place % 4 == 0:
            with socket.create_connection(("127.0.0.1", served.port)) as raw:
                raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[: place % 25])
            continue
        channel = served.connect()
        call = channel.unary_unary(INFER).future(body)
        if place % 4 == 1:
            poll(lambda: served.bench.scheduler.waiting_count > 0)
        if place % 4 == 2:
            call.cancel()
        channel.close()
    poll(lambda: served.bench.scheduler.waiting_count == 0)
    stuck.release.set()
    assert first.code() is grpc.StatusCode.OK
    poll(lambda: not served.carrier._open)
    assert gate.wait_until_empty(PATIENCE_SECONDS)
    assert served.bench.notebook.held == []


def test_a_request_over_the_limit_is_refused(serve: Serve) -> None:
    served = serve(replace(SETTINGS, max_message_bytes=1000))
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, bytes(2000))
    assert status_of(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
