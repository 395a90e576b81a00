"""What the carrier does with messages that are wrong, handlers that are broken, and callers who may not."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.server.errors import NotAllowed
from flyweight.server.rpc.call import Call, Stream, StreamReader
from flyweight.server.rpc.method import Streaming, Unary
from flyweight.server.rpc.slow import MOST_SLOW_CALLS
from flyweight.server.security.callers import ANYBODY, Caller

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"
LIVE = f"{SERVICE}/ServerLive"

Serve = Callable[..., Any]
MakeRequest = Callable[..., ModelInferRequest]


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


# --- messages that are not as they should be ---


def test_an_unknown_method_is_unimplemented(served: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call("/inference.GRPCInferenceService/Guess")
    assert status_of(caught.value) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "This server does not know the method /inference.GRPCInferenceService/Guess.",
    )


def test_an_unknown_method_may_have_a_long_name(served: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(f"/a/{'b' * 9000}")
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert len(sentence.encode()) <= 2048


def test_a_unary_call_without_a_message_is_unimplemented(served: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.channel.stream_unary(LIVE)(iter([]), timeout=PATIENCE_SECONDS)
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "exactly one message" in sentence


def test_of_two_messages_the_first_is_answered(served: Any, make_request: MakeRequest) -> None:
    bodies = [make_request(version=version).SerializeToString() for version in ("int8", "baseline")]
    body = served.channel.stream_unary(INFER)(iter(bodies), timeout=PATIENCE_SECONDS)
    assert ModelInferResponse.FromString(body).model_version == "int8"
    served.call(LIVE)


def test_bytes_that_are_no_message_are_invalid(served: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, b"\xff\xff")
    assert status_of(caught.value)[0] is grpc.StatusCode.INVALID_ARGUMENT
    served.call(LIVE)


# --- bugs, guards, slow calls ---


def fail_at_once(*_: object) -> Any:
    raise ZeroDivisionError("an inside of ours")


class FailingReader:
    """Takes any message for a bug."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def on_message(self, body: bytes) -> None:
        fail_at_once(body)

    def on_half_close(self) -> None:
        fail_at_once()


def open_failing(_: Call, stream: Stream) -> StreamReader:
    return FailingReader(stream)


@pytest.mark.parametrize(
    "method",
    [
        Unary("/flyweight.Other/Try", fail_at_once),
        Unary("/flyweight.Other/Try", fail_at_once, is_slow=True),
        Streaming("/flyweight.Other/Try", fail_at_once),
        Streaming("/flyweight.Other/Try", open_failing),
    ],
    ids=["unary", "slow", "opening", "message"],
)
@pytest.mark.parametrize("messages", [1, 0])
def test_a_bug_in_a_handler_is_a_bare_internal_and_the_next_call_works(
    serve: Serve, method: Any, messages: int
) -> None:
    served = serve(methods=(method,))
    with pytest.raises(grpc.RpcError) as caught:
        next(served.stream(method.path, iter([b""] * messages)))
    code, sentence = status_of(caught.value)
    if messages or isinstance(method, Streaming):
        assert code is grpc.StatusCode.INTERNAL
        assert sentence.startswith("internal error; see the server's log (id ")
    else:
        assert code is grpc.StatusCode.UNIMPLEMENTED
    served.call(LIVE)


def guard_all_but_probes(path: str, _: Call) -> Caller:
    if path == LIVE:
        return ANYBODY
    if path == INFER:
        return fail_at_once()
    raise NotAllowed("Not for you.")


@pytest.mark.parametrize("path", [f"{SERVICE}/ServerMetadata", f"{SERVICE}/ModelStreamInfer", "/a/Stranger"])
def test_whom_the_guard_refuses_gets_its_status(serve: Serve, path: str) -> None:
    served = serve(guard=guard_all_but_probes)
    with pytest.raises(grpc.RpcError) as caught:
        next(served.stream(path, iter([b""])))
    code, sentence = status_of(caught.value)
    if path == "/a/Stranger":
        assert code is grpc.StatusCode.UNIMPLEMENTED
    else:
        assert (code, sentence) == (grpc.StatusCode.PERMISSION_DENIED, "Not for you.")
    served.call(LIVE)


def test_a_bug_in_the_guard_lets_nobody_in(serve: Serve, make_request: MakeRequest) -> None:
    served = serve(guard=guard_all_but_probes)
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request().SerializeToString())
    assert status_of(caught.value)[0] is grpc.StatusCode.INTERNAL
    assert served.bench.notebook.records == []
    served.call(LIVE)


def test_the_guard_is_asked_before_anything_is_read(serve: Serve) -> None:
    """A caller who is refused need not have sent a message."""
    served = serve(guard=guard_all_but_probes)
    with pytest.raises(grpc.RpcError) as caught:
        served.channel.stream_unary(f"{SERVICE}/ServerMetadata")(iter([]), timeout=PATIENCE_SECONDS)
    assert status_of(caught.value)[0] is grpc.StatusCode.PERMISSION_DENIED


def test_slow_calls_keep_nobody_else_waiting_and_one_too_many_is_pushed_back(
    served: Any, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def load_slowly(*_: object) -> None:
        inside.release()
        assert go_on.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(served.bench.models, "load_model", load_slowly)
    body = pb.RepositoryModelLoadRequest(model_name="tiny").SerializeToString()
    load = f"{SERVICE}/RepositoryModelLoad"
    loads = [served.future(load, body) for _ in range(MOST_SLOW_CALLS)]
    try:
        for _ in loads:
            assert inside.acquire(timeout=PATIENCE_SECONDS)
        served.call(LIVE)
        served.call(INFER, make_request().SerializeToString())
        one_too_many = served.future(load, body)
        assert one_too_many.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        keys = [pair[0] for pair in one_too_many.trailing_metadata()]
        assert "grpc-retry-pushback-ms" in keys
    finally:
        go_on.set()
    assert [each.code() for each in loads] == [grpc.StatusCode.OK] * MOST_SLOW_CALLS
