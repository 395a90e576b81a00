"""Nothing that a call leaves behind waits for the collector, which counts objects and not their bytes."""

import gc
from collections.abc import Callable, Iterator

import grpc
import pytest

from flyweight.server.app import Server
from flyweight.server.settings import ServerSettings
from tests.system.stress.callers import STREAM, UNARY, body_of
from tests.system.stress.models import publish

pytestmark = pytest.mark.system

TIMEOUT_SECONDS = 30.0
ROUNDS = 20


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server in this process, whose objects can be looked at."""
    repository = tmp_path_factory.mktemp("circles") / "repository"
    publish(repository, "tiny", "baseline", 2.0)
    threshold = gc.get_threshold()
    server = Server(ServerSettings(repository=repository, port=0, metrics_port=0, measure_memory=False))
    try:
        yield server.start().address
    finally:
        server.stop(at_once=True)
        gc.unfreeze()
        gc.set_threshold(*threshold)


def call(path: str, body: bytes, timeout: float = TIMEOUT_SECONDS) -> Callable[[grpc.Channel], None]:
    def ask(channel: grpc.Channel) -> None:
        channel.unary_unary(path).future(body, timeout=timeout).exception()

    return ask


def cancelled(channel: grpc.Channel) -> None:
    channel.unary_unary(UNARY).future(body_of(1.0, "tiny", rows=1000), timeout=TIMEOUT_SECONDS).cancel()


def stream(body: bytes) -> Callable[[grpc.Channel], None]:
    def ask(channel: grpc.Channel) -> None:
        assert len(list(channel.stream_stream(STREAM)(iter([body] * 5), timeout=TIMEOUT_SECONDS))) == 5

    return ask


def half_a_stream(channel: grpc.Channel) -> None:
    answers = channel.stream_stream(STREAM)(iter([body_of(1.0, "tiny")] * 5), timeout=TIMEOUT_SECONDS)
    next(answers)
    answers.cancel()


WAYS: dict[str, Callable[[grpc.Channel], None]] = {
    "an answer": call(UNARY, body_of(1.0, "tiny")),
    "a model that is not there": call(UNARY, body_of(1.0, "none")),
    "a batch too large": call(UNARY, body_of(1.0, "tiny", rows=5000)),
    "no message": call(UNARY, b"\xff" * 1000),
    "a method that is not there": call("/inference.GRPCInferenceService/Nothing", b""),
    "a deadline too short": call(UNARY, body_of(1.0, "tiny", rows=1000), 0.0005),
    "a caller who goes away": cancelled,
    "a stream": stream(body_of(1.0, "tiny")),
    "a stream of failures": stream(body_of(1.0, "none")),
    "half a stream": half_a_stream,
}


@pytest.mark.parametrize("way", list(WAYS))
def test_no_circle_is_left_of(address: str, way: str) -> None:
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask, settle = WAYS[way], call(UNARY, body_of(1.0, "tiny"))
        ask(channel)
        settle(channel)
        gc.collect()
        gc.disable()
        try:
            for _ in range(ROUNDS):
                ask(channel)
            # What came before it on this connection is over by the time it is answered, but for the last.
            for _ in range(3):
                settle(channel)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [kind for kind in map(type, gc.garbage) if kind.__module__.startswith("flyweight.server")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
