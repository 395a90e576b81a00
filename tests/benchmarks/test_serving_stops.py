"""The accounts of calls to a server that stops: what is an answer, what a refusal, what is lost."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from benchmarks.serving.asking import Question
from benchmarks.serving.stops import Outcome, stop_under_load

pytestmark = pytest.mark.source

CALLERS = 3


@pytest.fixture
def stopped_by() -> Iterator[Callable[[grpc.StatusCode], Outcome]]:
    """Ask a server that answers until it is told to stop, then ends calls with a status."""
    server = grpc.server(ThreadPoolExecutor(CALLERS))
    is_told = threading.Event()
    status = grpc.StatusCode.OK

    def behave(body: bytes, context: grpc.ServicerContext) -> bytes:
        if is_told.is_set():
            context.abort(status, "as the test wants it")
        return body

    handler = grpc.unary_unary_rpc_method_handler(behave)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def stop(wanted: grpc.StatusCode) -> Outcome:
        nonlocal status
        status = wanted
        running = SimpleNamespace(
            address=f"127.0.0.1:{port}",
            contender=SimpleNamespace(
                question=Question("/a.Service/Call", b"x", is_grpc=True, expected=np.zeros(1, np.float32))
            ),
            process=SimpleNamespace(terminate=is_told.set),
        )
        outcome = Outcome()
        asyncio.run(stop_under_load(running, outcome, CALLERS, load_seconds=0.05))  # type: ignore[arg-type]
        outcome.codes[0] += 1
        return outcome

    yield stop
    server.stop(None).wait()


def test_unavailable_is_a_refusal_and_nothing_is_lost(
    stopped_by: Callable[[grpc.StatusCode], Outcome],
) -> None:
    outcome = stopped_by(grpc.StatusCode.UNAVAILABLE)
    assert outcome.answered >= CALLERS
    assert outcome.refused == {"UNAVAILABLE: as the test wants it": CALLERS}
    assert outcome.is_whole


def test_any_other_end_is_a_call_that_is_lost(stopped_by: Callable[[grpc.StatusCode], Outcome]) -> None:
    outcome = stopped_by(grpc.StatusCode.CANCELLED)
    assert outcome.lost == {"CANCELLED: as the test wants it": CALLERS}
    assert not outcome.is_whole
    assert f"{CALLERS} lost" in str(outcome)


@pytest.mark.parametrize("found", [{"unheard": 1}, {"codes": {1: 1}}])
def test_an_answer_that_nobody_has_and_work_given_up_count_as_lost(found: dict[str, object]) -> None:
    whole = Outcome(answered=5)
    whole.codes[0] = 1
    assert whole.is_whole
    for name, value in found.items():
        setattr(whole, name, value)
    assert not whole.is_whole
