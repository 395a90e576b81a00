"""Deadlines and cancellation: what nobody waits for any more should not be done."""

import struct
import time
from typing import Any

import grpc
import pytest
from oip import http2
from oip.cases import MUST, ROBUSTNESS, SHOULD, Code, case
from oip.http2 import message, request_headers, unary, wire
from oip.pace import Pace, find_pace
from oip.survey import Survey
from oip.target import SERVICE, Target, failure

from flyweight.protos.inference.grpc_service_pb2 import ServerLiveRequest


@pytest.fixture(scope="module")
def pace(target: Target, server: Survey) -> Pace:
    if "slow" not in server.models:
        pytest.skip("not hosted here: slow")
    return find_pace(target)


@case("deadline/long-enough", MUST, "slow")
def test_a_long_deadline_changes_nothing(target: Target, pace: Pace) -> None:
    """A request whose deadline is far away is answered.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md, Timeout.
    """
    target.infer(pace.lasting(0.05), timeout=60).must_be_ok()


@case("deadline/told-by-the-server", MUST, "slow")
def test_the_server_ends_a_call_at_its_deadline(target: Target, pace: Pace) -> None:
    """A call with grpc-timeout is ended by the server, by DEADLINE_EXCEEDED or a reset, not by a late answer.

    Source: grpc/grpc, doc/PROTOCOL-HTTP2.md, Timeout.
    """
    headers = request_headers("ModelInfer", (b"grpc-timeout", b"100m"))
    body = message(pace.lasting(2.0).SerializeToString())
    with wire(target) as connection:
        connection.hello().send(unary(1, headers, body))
        frames = connection.until_end_of(1)
    assert frames, "REQUIRED an end of the stream; the connection just went silent"
    is_reset = frames[-1].kind == http2.RST_STREAM
    status = http2.status_in(frames)
    if not is_reset and status is None:
        pytest.skip("the server compresses its headers; the status could not be read")
    assert is_reset or status == Code.DEADLINE_EXCEEDED.value[0], f"REQUIRED status 4; answered {status}"


@case("deadline/expired-work-is-dropped", SHOULD, "slow")
def test_expired_requests_are_not_run(target: Target, pace: Pace) -> None:
    """Sixteen requests whose deadline passes while they wait cost those who come after them (almost) nothing.

    Source: grpc/grpc, doc/statuscodes.md; "gRPC and Deadlines": a server stops work that nobody waits for.
    """
    doomed, first = pace.lasting(0.3), time.monotonic()
    target.infer(doomed).must_be_ok()
    one = time.monotonic() - first
    calls = [_start(target, doomed.SerializeToString(), one / 4) for _ in range(16)]
    codes = {_code_of(call) for call in calls}
    before = time.monotonic()
    target.infer(pace.lasting(0.001), timeout=60).must_be_ok()
    waited = time.monotonic() - before
    # A machine that was busy while `one` was measured may answer one of them in time.
    allowed = {Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.OK}
    names = sorted(code.name for code in codes)
    assert codes <= allowed, f"REQUIRED DEADLINE_EXCEEDED; answered {names}"
    # Two processors run sixteen of them in eight times `one`; those that had begun may end.
    assert waited < 4 * one, f"REQUIRED a wait below 4 runs of what expired; it was {waited / one:.1f} runs"


@case("cancel/frees-the-queue", SHOULD, "slow")
def test_cancelled_requests_are_not_run(target: Target, pace: Pace) -> None:
    """Sixteen requests that are cancelled while they wait cost those who come after them (almost) nothing.

    Source: grpc/grpc, "Cancellation": a server stops work that nobody waits for.
    """
    doomed, first = pace.lasting(0.3), time.monotonic()
    target.infer(doomed).must_be_ok()
    one = time.monotonic() - first
    calls = [_start(target, doomed.SerializeToString(), 60) for _ in range(16)]
    # One that came after them has been read when it is answered, and so have they.
    target.call("ServerLive", ServerLiveRequest()).must_be_ok()
    for call in calls:
        call.cancel()
    before = time.monotonic()
    target.infer(pace.lasting(0.001), timeout=60).must_be_ok()
    waited = time.monotonic() - before
    assert waited < 4 * one, (
        f"REQUIRED a wait below 4 runs of what was cancelled; it was {waited / one:.1f} runs"
    )


@case("cancel/by-hanging-up", ROBUSTNESS, "slow")
def test_a_caller_that_hangs_up_harms_nobody(target: Target, pace: Pace) -> None:
    """A connection that breaks in the middle of a run leaves the server whole.

    Source: RFC 9113, section 5.1; none in the protocol.
    """
    body = message(pace.lasting(0.1).SerializeToString())
    for _ in range(5):
        with wire(target) as connection:
            connection.hello().send(unary(1, request_headers(), body))
            # A reset in place of an orderly end.
            connection.linger_no_more()
    target.must_still_answer()


@case("cancel/by-reset", ROBUSTNESS, "slow")
def test_a_reset_stream_leaves_its_connection_usable(target: Target, pace: Pace) -> None:
    """After RST_STREAM the next request of the same connection is answered.

    Source: RFC 9113, section 6.4.
    """
    from oip.requests import add_sub_request

    with wire(target) as connection:
        connection.hello().send(unary(1, request_headers(), message(pace.lasting(0.2).SerializeToString())))
        connection.send(http2.frame(http2.RST_STREAM, stream=1, payload=struct.pack(">I", 8)))
        connection.send(unary(3, request_headers(), message(add_sub_request().SerializeToString())))
        frames = connection.until_end_of(3)
    assert any(each.kind == http2.DATA and each.stream == 3 for each in frames), "REQUIRED a response"


@case("deadline/very-short", ROBUSTNESS)
def test_deadlines_that_have_passed_already_are_no_disaster(target: Target) -> None:
    """A hundred requests with deadlines of microseconds are refused or answered, and nothing else happens.

    Source: grpc/grpc, doc/statuscodes.md.
    """
    from oip.requests import add_sub_request

    for number in range(100):
        answer = target.infer(add_sub_request(), timeout=number * 1e-5)
        answer.must_be(Code.OK, Code.DEADLINE_EXCEEDED)
    target.must_still_answer()


def _start(target: Target, body: bytes, timeout: float) -> Any:
    return target.channel.unary_unary(f"/{SERVICE}/ModelInfer").future(body, timeout=timeout)


def _code_of(call: Any) -> grpc.StatusCode:
    error = call.exception()
    return Code.OK if error is None else failure(error).code
