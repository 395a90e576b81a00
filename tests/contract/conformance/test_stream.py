"""ModelStreamInfer: many requests, many answers, one stream."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from oip.cases import Code, case, extension
from oip.requests import A, B, add_sub_request, identity_request
from oip.target import Target, failure

STREAMING = extension("streaming")


def numbered(number: int) -> Any:
    """Return a request whose answer is its number, and whose id is."""
    return add_sub_request(np.full((1, 4), number, "<f4"), np.zeros((1, 4), "<f4"), identity=str(number))


def number_of(message: Any) -> int:
    assert not message.error_message, f"REQUIRED a response; answered {message.error_message!r}"
    (first, *_), *_ = np.frombuffer(message.infer_response.raw_output_contents[0], "<f4").reshape(-1, 4)
    return int(first)


@case("stream/one", STREAMING)
def test_a_request_in_a_stream_is_answered(target: Target) -> None:
    """A request gets one message, without an error, with the response that ModelInfer would give.

    Source: Triton, grpc_service.proto, rpc ModelStreamInfer.
    """
    (message,) = target.stream_all([add_sub_request(identity="a")])
    assert (message.error_message, message.infer_response.id) == ("", "a")
    alone = target.infer(add_sub_request(identity="a")).must_be_ok()
    assert message.infer_response.raw_output_contents == alone.raw_output_contents
    assert message.infer_response.model_name == "add_sub"


@case("stream/order", STREAMING)
def test_answers_come_in_the_order_of_the_requests(target: Target) -> None:
    """Two hundred requests of one stream are answered in their order.

    Source: Triton, grpc_service.proto, rpc ModelStreamInfer; Triton's clients pair answers by order or by id.
    """
    messages = target.stream_all([numbered(number) for number in range(200)])
    assert [number_of(message) for message in messages] == list(range(200))
    assert [message.infer_response.id for message in messages] == [str(n) for n in range(200)]


@case("stream/several-models", STREAMING)
def test_a_stream_may_ask_several_models(target: Target) -> None:
    """Requests of one stream go to the models that they name.

    Source: Triton, grpc_service.proto, rpc ModelStreamInfer: a stream of ModelInferRequest.
    """
    messages = target.stream_all([add_sub_request(), identity_request("FP32", A.ravel()), add_sub_request()])
    assert [m.infer_response.model_name for m in messages] == ["add_sub", "identity_fp32", "add_sub"]


@case("stream/empty", STREAMING)
def test_an_empty_stream_ends_well(target: Target) -> None:
    """A stream without a request ends with OK and without a message.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md: streams may be empty.
    """
    assert target.stream_all([]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda r: setattr(r, "model_name", "no_such_model"), id="unknown-model"),
        pytest.param(lambda r: setattr(r, "model_version", "99"), id="unknown-version"),
        pytest.param(lambda r: setattr(r.inputs[0], "name", "INPUT9"), id="unknown-input"),
        pytest.param(lambda r: r.raw_input_contents.pop(), id="raw-missing"),
    ],
)
@case("stream/error-inside", STREAMING)
def test_an_error_is_a_message_and_not_the_end(target: Target, wrong: Any) -> None:
    """A wrong request gets a message with error_message; the stream goes on, and the next one is answered.

    Source: Triton, grpc_service.proto, ModelStreamInferResponse.error_message.
    """
    bad = numbered(2)
    wrong(bad)
    first, second, third = target.stream_all([numbered(1), bad, numbered(3)])
    assert second.error_message, "REQUIRED an error_message for the wrong request"
    assert [number_of(first), number_of(third)] == [1, 3]


@case("stream/error-id", STREAMING)
def test_an_error_names_the_request_that_it_is_for(target: Target) -> None:
    """The message with an error has the id of the wrong request in its infer_response.

    Source: Triton, protocol extensions, "GRPC ... ModelStreamInfer": clients find the request by its id.
    """
    bad = numbered(7)
    bad.model_name = "no_such_model"
    (message,) = target.stream_all([bad])
    assert message.infer_response.id == "7"


@case("stream/half-close", STREAMING)
def test_answers_come_after_the_client_has_said_all(target: Target) -> None:
    """When the client closes its side, what was asked is still answered, and then the stream ends with OK.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md: half-close.
    """
    call = target.stream([numbered(number) for number in range(50)])
    assert [number_of(message) for message in call] == list(range(50))
    assert call.code() is Code.OK


@case("stream/turns", STREAMING)
def test_a_client_may_wait_for_each_answer(target: Target) -> None:
    """A client that sends the next request only after an answer gets each at once: none is held back.

    Source: Triton, grpc_service.proto, rpc ModelStreamInfer.
    """
    outbox: queue.Queue[Any] = queue.Queue()

    def requests() -> Iterator[Any]:
        while (asked := outbox.get()) is not None:
            yield asked

    call = iter(target.stream(requests()))
    try:
        for number in range(20):
            outbox.put(numbered(number))
            assert number_of(next(call)) == number
    except grpc.RpcError as error:
        pytest.fail(f"REQUIRED an answer to each; the stream ended with {failure(error)}", pytrace=False)
    finally:
        outbox.put(None)
    assert list(call) == []


@case("stream/cancel", STREAMING)
def test_a_cancelled_stream_harms_nobody(target: Target) -> None:
    """Streams that are cancelled in the middle leave the server whole.

    Source: none in the protocol.
    """
    for _ in range(10):
        call = target.stream(numbered(number) for number in range(1000))
        assert number_of(next(call)) == 0
        call.cancel()
    target.must_still_answer()


@case("stream/many-streams", STREAMING)
def test_streams_side_by_side_keep_to_themselves(target: Target) -> None:
    """Three streams at once each get their own answers in their own order.

    Source: none in the protocol. Few requests: a server may refuse what is more than it holds at one time.
    """
    calls = [target.stream([numbered(100 * s + n) for n in range(20)]) for s in range(3)]
    for index, call in enumerate(calls):
        numbers = [number_of(message) for message in call]
        assert numbers == [100 * index + n for n in range(20)]


@case("stream/slow-reader", STREAMING)
def test_a_slow_reader_loses_nothing(target: Target) -> None:
    """A client that reads late gets all answers, though they are more than the connection holds.

    Source: RFC 9113, section 5.2: flow control.
    """
    large = np.arange(64 << 10, dtype="<f4")
    call = target.stream([identity_request("FP32", large, identity=str(n)) for n in range(40)])
    # Answered in the meantime by another call: the stream that nobody reads blocks nobody.
    assert (target.infer(add_sub_request()).tensors()["OUTPUT0"][1] == A + B).all()
    ids = [message.infer_response.id for message in call]
    assert ids == [str(n) for n in range(40)]


@case("stream/unparsable", STREAMING)
def test_an_unparsable_message_does_not_take_the_server_along(target: Target) -> None:
    """A message that is no ModelInferRequest ends the stream with an error, or is answered by one.

    Source: grpc/grpc, doc/statuscodes.md.
    """
    call = target.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    try:
        found = list(call(iter([b"\xff\xff\xff"]), timeout=10))
    except grpc.RpcError as error:
        failure(error).must_be_refused(never={Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE})
    else:
        assert found, "REQUIRED an error; the stream ended with OK"
    target.must_still_answer()
