"""Every call that ends is counted once, with the status that its caller heard, wherever it ended."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.server.errors import Code, NotAllowed, Unauthenticated
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.rpc import arriving
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.call_counts import CallCounts
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.security.callers import ANYBODY, Caller
from flyweight.server.settings import ServerSettings

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
INFER, LIVE, STREAM = f"{SERVICE}/ModelInfer", f"{SERVICE}/ServerLive", f"{SERVICE}/ModelStreamInfer"
SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=4)
ALONE = ServingPolicy(Merging.NEVER, max_rows=8)

Serve = Callable[..., Any]
Poll = Callable[[Callable[[], bool]], None]
MakeRequest = Callable[..., ModelInferRequest]


@pytest.fixture
def ended(poll: Poll) -> Callable[..., None]:
    """Return a function that waits until so many calls are counted, and says which they must be."""

    def check(served: Any, *expected: tuple[str, Code]) -> None:
        def found() -> list[tuple[str, Code]]:
            totals = served.carrier.counts.totals()
            return [(path, code) for path, code, count in totals for _ in range(count)]

        poll(lambda: len(found()) >= len(expected))
        assert sorted(found()) == sorted(expected)

    return check


def refused(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code()


@pytest.fixture
def unsent() -> Iterator[Callable[[], Iterator[bytes]]]:
    """Return messages that are not sent before the test is over."""
    over = threading.Event()

    def messages() -> Iterator[bytes]:
        over.wait(PATIENCE_SECONDS)
        yield from ()

    yield messages
    over.set()


def test_answers_and_failures_are_counted_by_their_code(
    served: Any, make_request: MakeRequest, ended: Callable[..., None]
) -> None:
    served.call(LIVE)
    served.call(INFER, make_request().SerializeToString())
    refused(lambda: served.call(INFER, make_request(version="int4").SerializeToString()))
    list(served.stream(STREAM, iter([make_request().SerializeToString()])))
    ended(served, (LIVE, Code.OK), (INFER, Code.OK), (INFER, Code.NOT_FOUND), (STREAM, Code.OK))


@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large_is_counted(
    serve: Serve, ended: Callable[..., None], path: str, compression: grpc.Compression
) -> None:
    """The core of gRPC refuses it, and no handler learns of it."""
    served = serve(replace(SETTINGS, max_message_bytes=1000))
    call = served.stream(path, iter([bytes(2000)]), compression=compression)
    assert refused(lambda: next(call)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    ended(served, (path, Code.RESOURCE_EXHAUSTED))


@pytest.mark.parametrize("refusal", [NotAllowed, Unauthenticated])
def test_whom_the_guard_refuses_is_counted(
    serve: Serve, ended: Callable[..., None], refusal: type[Exception]
) -> None:
    def guard(path: str, _: Call) -> Caller:
        if path == LIVE:
            return ANYBODY
        raise refusal("Not for you.")

    served = serve(guard=guard)
    code = Code.PERMISSION_DENIED if refusal is NotAllowed else Code.UNAUTHENTICATED
    for path in (INFER, STREAM):
        refused(lambda path=path: next(served.stream(path, iter([b""]))))
    ended(served, (INFER, code), (STREAM, code))


def test_one_too_many_is_counted(
    serve: Serve, make_request: MakeRequest, stuck: Any, ended: Callable[..., None]
) -> None:
    gate = Gate(1)
    gate.open()
    served = serve(
        runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()}, gate=gate, serving=ALONE
    )
    body = make_request(version="baseline").SerializeToString()
    first = served.future(INFER, body)
    stuck.wait_for()
    assert served.future(INFER, body).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    ended(served, (INFER, Code.RESOURCE_EXHAUSTED))
    stuck.release.set()
    first.result()
    ended(served, (INFER, Code.RESOURCE_EXHAUSTED), (INFER, Code.OK))


def test_messages_that_never_come_give_way_and_are_counted(
    serve: Serve,
    unsent: Callable[[], Iterator[bytes]],
    ended: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arriving, "_YOUNG_SECONDS", 0.0)
    served = serve(replace(SETTINGS, max_in_flight=1))
    calls = [served.stream(INFER, unsent()) for _ in range(3)]
    ended(served, *[(INFER, Code.RESOURCE_EXHAUSTED)] * 2)
    for call in calls:
        call.cancel()
    ended(served, *[(INFER, Code.RESOURCE_EXHAUSTED)] * 2, (INFER, Code.CANCELLED))


def test_a_caller_who_goes_before_its_message_is_counted_as_gone(
    served: Any, unsent: Callable[[], Iterator[bytes]], ended: Callable[..., None], poll: Poll
) -> None:
    call = served.stream(INFER, unsent())
    poll(lambda: len(served.carrier._arriving) == 1)
    call.cancel()
    ended(served, (INFER, Code.CANCELLED))


def test_a_caller_whose_time_is_over_is_counted_as_late(
    serve: Serve, make_request: MakeRequest, stuck: Any, ended: Callable[..., None]
) -> None:
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()})
    body = make_request(version="baseline").SerializeToString()
    late = served.future(INFER, body, timeout=0.2)
    stuck.wait_for()
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    ended(served, (INFER, Code.DEADLINE_EXCEEDED))


def test_no_message_and_an_unknown_method_are_counted(served: Any, ended: Callable[..., None]) -> None:
    """The names that callers invent are not."""
    refused(lambda: next(served.stream(LIVE, iter([]))))
    for name in ("Guess", "Invent"):
        refused(lambda name=name: served.call(f"{SERVICE}/{name}"))
    ended(served, (LIVE, Code.UNIMPLEMENTED), *[("", Code.UNIMPLEMENTED)] * 2)


def test_counts_begin_with_none() -> None:
    counts = CallCounts([LIVE])
    assert list(counts.totals()) == []
    counts.add(LIVE, Code.UNAUTHENTICATED)
    counts.add("/a/Stranger", Code.OK)
    assert list(counts.totals()) == [("", Code.OK, 1), (LIVE, Code.UNAUTHENTICATED, 1)]
