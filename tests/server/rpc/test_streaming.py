"""ModelStreamInfer over a real socket: the order of answers, failures inside a stream, and its ends."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelStreamInferResponse
from flyweight.server.errors import Code
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.rpc import call_stream, streaming
from flyweight.server.rpc.admission import Gate
from flyweight.server.runtime.fake import FakeRuntime

PATIENCE_SECONDS = 30
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
ALONE = ServingPolicy(Merging.NEVER, max_rows=8)

Serve = Callable[..., Any]
Poll = Callable[[Callable[[], bool]], None]
MakeRequest = Callable[..., ModelInferRequest]


class Sender:
    """What a caller sends, one by one as the test likes, until it half-closes."""

    def __init__(self, *requests: ModelInferRequest) -> None:
        self._bodies: queue.Queue[bytes | None] = queue.Queue()
        self.taken = 0
        for request in requests:
            self.send(request)

    def send(self, request: ModelInferRequest) -> None:
        self._bodies.put(request.SerializeToString())

    def half_close(self) -> None:
        self._bodies.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (body := self._bodies.get(timeout=PATIENCE_SECONDS)) is not None:
            self.taken += 1
            yield body


def named(make_request: MakeRequest, name: object, **more: Any) -> ModelInferRequest:
    request = make_request(**more)
    request.id = str(name)
    return request


def read(stream: Any) -> ModelStreamInferResponse:
    return ModelStreamInferResponse.FromString(next(stream))


def ids(stream: Any, count: int) -> list[str]:
    return [read(stream).infer_response.id for _ in range(count)]


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[Sender, Any]]]:
    """Open streams; a test that fails leaves no generator waiting."""
    senders: list[Sender] = []

    def begin(served: Any, *requests: ModelInferRequest, **options: Any) -> tuple[Sender, Any]:
        senders.append(Sender(*requests))
        return senders[-1], served.stream(STREAM, iter(senders[-1]), **options)

    yield begin
    for sender in senders:
        sender.half_close()


Opened = Callable[..., tuple[Sender, Any]]


def test_every_request_is_answered_in_order_and_the_stream_ends(
    served: Any, make_request: MakeRequest, opened: Opened
) -> None:
    sender, stream = opened(served, *[named(make_request, place) for place in range(100)])
    sender.half_close()
    assert ids(stream, 100) == [str(place) for place in range(100)]
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.code() is grpc.StatusCode.OK
    assert served.bench.gate.accepted_count == 0


def test_answers_come_in_the_order_of_the_requests_whoever_is_done_first(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    quick = FakeRuntime()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": quick})
    sender, stream = opened(served, named(make_request, "slow", version="baseline"))
    stuck.wait_for()
    for place in range(3):
        sender.send(named(make_request, place, version="int8"))
    poll(lambda: len(served.bench.notebook.records) == 3)
    stuck.release.set()
    assert ids(stream, 4) == ["slow", "0", "1", "2"]


def test_answers_come_as_soon_as_it_is_their_turn(
    served: Any, make_request: MakeRequest, opened: Opened
) -> None:
    """Neither a half-close nor another request is waited for."""
    sender, stream = opened(served)
    for place in range(5):
        sender.send(named(make_request, place))
        assert ids(stream, 1) == [str(place)]


def test_a_request_that_fails_is_told_inside_the_stream_which_goes_on(
    served: Any, make_request: MakeRequest, opened: Opened
) -> None:
    unknown, bad = named(make_request, 1), named(make_request, 2)
    unknown.model_name = "nothing"
    bad.raw_input_contents[0] = b""
    sender, stream = opened(served, named(make_request, 0), unknown, bad, named(make_request, 3))
    sender.half_close()
    answers = [read(stream) for _ in range(4)]
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "3"]
    assert "'nothing'" in answers[1].error_message
    assert "'x'" in answers[2].error_message
    assert [answer.error_message for answer in (answers[0], answers[3])] == ["", ""]
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.code() is grpc.StatusCode.OK


def test_garbage_is_told_inside_the_stream_too(served: Any, make_request: MakeRequest) -> None:
    bodies = [b"\xff\xff", make_request().SerializeToString()]
    stream = served.stream(STREAM, iter(bodies))
    assert "inference.ModelInferRequest" in read(stream).error_message
    assert read(stream).infer_response.id == "q-1"


def test_a_stream_of_nothing_ends_well(served: Any) -> None:
    stream = served.stream(STREAM, iter([]))
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.code() is grpc.StatusCode.OK


def test_what_is_under_way_at_the_half_close_is_answered(
    serve: Serve, make_request: MakeRequest, stuck: Any, opened: Opened
) -> None:
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()})
    sender, stream = opened(served, *[named(make_request, place, version="baseline") for place in range(3)])
    sender.half_close()
    stuck.wait_for()
    stuck.release.set()
    assert ids(stream, 3) == ["0", "1", "2"]
    with pytest.raises(StopIteration):
        next(stream)


def test_requests_of_one_stream_share_runs(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    merged = FakeRuntime()
    gate = Gate(16)
    gate.open()
    served = serve(
        runtimes={"baseline": FakeRuntime(function=stuck), "int8": merged},
        gate=gate,
        slots=1,
        serving=ServingPolicy(Merging.ASKED, max_rows=8),
    )
    sender, stream = opened(served, named(make_request, "slow", version="baseline"))
    stuck.wait_for()
    for place in range(8):
        sender.send(named(make_request, place, version="int8"))
    poll(lambda: served.bench.scheduler.waiting_count == 8)
    stuck.release.set()
    assert ids(stream, 9) == ["slow", *map(str, range(8))]
    assert merged.runs == 1


# --- the caller goes away ---


def test_a_caller_who_cancels_is_not_run_any_further(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    quick = FakeRuntime()
    gate = Gate(16)
    gate.open()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": quick}, gate=gate, slots=1)
    sender, stream = opened(served, named(make_request, "slow", version="baseline"))
    stuck.wait_for()
    for place in range(5):
        sender.send(named(make_request, place, version="int8"))
    poll(lambda: served.bench.scheduler.waiting_count == 5)
    stream.cancel()
    poll(lambda: served.bench.scheduler.waiting_count == 0)
    stuck.release.set()
    assert gate.wait_until_empty(PATIENCE_SECONDS)
    poll(lambda: not served.carrier._open)
    assert quick.runs == 0
    assert [record.code for record in served.bench.notebook.records][:5] == [Code.CANCELLED] * 5
    assert served.bench.notebook.held == []


def test_the_deadline_of_a_stream_is_that_of_its_requests(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    quick = FakeRuntime()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": quick}, slots=1)
    requests = [named(make_request, "slow", version="baseline"), named(make_request, 1, version="int8")]
    _, stream = opened(served, *requests, timeout=0.3)
    stuck.wait_for()
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    poll(lambda: served.bench.scheduler.waiting_count == 0)
    stuck.release.set()
    assert served.bench.gate.wait_until_empty(PATIENCE_SECONDS)
    assert quick.runs == 0


# --- bounds ---


def test_a_long_stream_remembers_only_what_is_under_way(
    served: Any, make_request: MakeRequest, opened: Opened
) -> None:
    sender, stream = opened(served)
    for place in range(300):
        sender.send(named(make_request, place))
        next(stream)
    (call,) = served.carrier._open
    assert len(call._on_over) <= 4


def test_no_more_of_a_stream_is_under_way_than_fills_a_batch(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    gate = Gate(1000)
    gate.open()
    served = serve(
        runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()}, gate=gate, slots=1
    )
    sender, stream = opened(served, *[named(make_request, place, version="baseline") for place in range(200)])
    sender.half_close()
    stuck.wait_for()
    poll(lambda: gate.accepted_count == streaming._MOST_UNDER_WAY)
    settled = poll_steady(lambda: gate.accepted_count)
    assert settled == streaming._MOST_UNDER_WAY
    stuck.release.set()
    assert ids(stream, 200) == [str(place) for place in range(200)]


def test_a_caller_who_does_not_read_is_not_read_either(
    serve: Serve, make_request: MakeRequest, opened: Opened
) -> None:
    """Answers of 256 KiB fill the connection at once: what the server holds beyond it is bounded."""
    runtime = FakeRuntime(function=lambda inputs: {"y": np.zeros((len(inputs["x"]), 65_536), np.float32)})
    served = serve(runtimes={"baseline": runtime, "int8": FakeRuntime()}, serving=ALONE)
    requests = [named(make_request, place, version="baseline") for place in range(400)]
    sender, stream = opened(served, *requests)
    sender.half_close()
    answered = poll_steady(lambda: len(served.bench.notebook.records))
    # More are on their way, in the kernel's buffers and the client's, which grow to some megabytes.
    assert answered <= call_stream._MOST_UNSENT + streaming._MOST_UNDER_WAY + 64
    assert ids(stream, 400) == [str(place) for place in range(400)]


def poll_steady(count: Callable[[], int]) -> int:
    """Return a number once it has not changed for a while."""
    pause, last, same = threading.Event(), -1, 0
    for _ in range(100 * PATIENCE_SECONDS):
        now = count()
        same = same + 1 if now == last and now > 0 else 0
        if same == 25:
            return now
        last = now
        pause.wait(0.02)
    raise AssertionError("it never came to rest")


def test_a_stream_larger_than_the_server_waits_for_itself(
    serve: Serve, make_request: MakeRequest, opened: Opened
) -> None:
    """A single caller who sends fast does not overload a server that has nobody else."""
    gate = Gate(2)
    gate.open()
    served = serve(gate=gate)
    sender, stream = opened(served, *[named(make_request, place) for place in range(100)])
    sender.half_close()
    answers = [read(stream) for _ in range(100)]
    assert [answer.error_message for answer in answers] == [""] * 100
    assert [answer.infer_response.id for answer in answers] == [str(place) for place in range(100)]


def test_a_request_for_which_there_is_no_room_waits_for_those_of_its_stream(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    quick = FakeRuntime()
    gate = Gate(1)
    gate.open()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": quick}, gate=gate)
    _, stream = opened(
        served, named(make_request, 0, version="baseline"), named(make_request, 1, version="int8")
    )
    stuck.wait_for()
    poll(lambda: [record.code for record in served.bench.notebook.records] == [Code.RESOURCE_EXHAUSTED])
    assert quick.runs == 0
    stuck.release.set()
    assert ids(stream, 2) == ["0", "1"]
    assert quick.runs == 1


def test_a_request_is_refused_where_others_fill_the_server(
    serve: Serve, make_request: MakeRequest, opened: Opened
) -> None:
    gate = Gate(1)
    gate.open()
    gate.enter()
    served = serve(gate=gate)
    sender, stream = opened(served, named(make_request, 0))
    assert "--max-in-flight" in read(stream).error_message
    gate.leave()
    sender.send(named(make_request, 1))
    assert ids(stream, 1) == ["1"]


def test_a_parked_request_of_a_caller_who_goes_away_is_not_run(
    serve: Serve, make_request: MakeRequest, stuck: Any, poll: Poll, opened: Opened
) -> None:
    quick = FakeRuntime()
    gate = Gate(1)
    gate.open()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": quick}, gate=gate)
    _, stream = opened(
        served, named(make_request, 0, version="baseline"), named(make_request, 1, version="int8")
    )
    stuck.wait_for()
    poll(lambda: len(served.bench.notebook.records) == 1)
    stream.cancel()
    poll(lambda: not served.carrier._open)
    stuck.release.set()
    poll(lambda: len(served.bench.notebook.records) == 3)
    assert quick.runs == 0
    assert gate.wait_until_empty(PATIENCE_SECONDS)


# --- a stock client ---


def test_tritonclient_gets_its_answers_in_order(served: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for place in range(20):
            client.async_stream_infer("tiny", [tensor], model_version="int8", request_id=str(place))
        client.async_stream_infer("nothing", [tensor], request_id="20")
        got = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(21)]
        client.stop_stream()
    assert [result.get_response().id for result, _ in got[:20]] == [str(place) for place in range(20)]
    np.testing.assert_array_equal(got[0][0].as_numpy("y"), np.full((1, 4), 3, np.float32))
    assert "'nothing'" in str(got[20][1])
