"""A server stops under load and another one takes its place: clients move on, and nothing is lost."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.server.errors import StartError
from flyweight.server.rpc.call import Body, Call, Reply
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.method import Deferred, Method, Unary
from flyweight.server.settings import ServerSettings, Transport
from tests.runs import NoRuns

PATIENCE_SECONDS = 30
ASK, LATER = "/t.Takeover/Ask", "/t.Takeover/Later"


def _later(body: Body, _call: Call, reply: Reply) -> None:
    threading.Timer(0.005, lambda: reply(bytes(body))).start()


METHODS: tuple[Method, ...] = (Unary(ASK, lambda body, _: body), Deferred(LATER, _later))


def serve(port: int) -> tuple[Carrier, int]:
    """Serve at a port as soon as it is free, or at any; return that, too."""
    settings = ServerSettings(Path("unused"), port=port, transport=Transport.WIRE)
    pause = threading.Event()
    for _ in range(100 * PATIENCE_SECONDS):
        carrier = Carrier(settings, METHODS, NoRuns())
        try:
            number = carrier.bind()
        except StartError:
            carrier.stop(0)
            pause.wait(0.01)
            continue
        carrier.start()
        return carrier, number
    raise AssertionError(f"port {port} is never free")


class Load:
    """Callers that ask without a pause, over some channels, and send nothing twice by themselves."""

    def __init__(self, port: int, channels: int, callers: int) -> None:
        self.codes: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self._lock, self._is_ending = threading.Lock(), False
        self._answered = threading.Condition(self._lock)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        self._channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(channels)]
        self._threads = [
            threading.Thread(target=self._ask, args=(channel, path))
            for channel in self._channels
            for path in (ASK, LATER)
            for _ in range(callers)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, channel: grpc.Channel, path: str) -> None:
        method = channel.unary_unary(path, None, None)
        while not self._is_ending:
            call = method.future(b"x" * 1000, timeout=PATIENCE_SECONDS, wait_for_ready=True)
            code, why = call.code(), call.details()
            with self._lock:
                self.codes[code, why] += 1
                self._answered.notify_all()

    def wait_for(self, more: int) -> None:
        with self._answered:
            enough = self.codes.total() + more
            assert self._answered.wait_for(lambda: self.codes.total() >= enough, PATIENCE_SECONDS)

    def close(self) -> None:
        self._is_ending = True
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for channel in self._channels:
            channel.close()


@pytest.fixture
def at_end() -> Any:
    with ExitStack() as stack:
        yield stack.callback


def test_a_successor_at_the_same_address_takes_over_and_nothing_is_lost(at_end: Callable[..., Any]) -> None:
    """The clients send again only what they know was not processed, which gRPC's do by themselves."""
    server, port = serve(0)
    load = Load(port, channels=3, callers=3)
    at_end(load.close)
    for _ in range(3):
        load.wait_for(500)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE_SECONDS,))
        stopping.start()
        server, _ = serve(port)
        stopping.join(PATIENCE_SECONDS)
        assert not stopping.is_alive()
        load.wait_for(500)
    load.close()
    server.stop(0)
    assert {code for code, _ in load.codes} == {grpc.StatusCode.OK}, load.codes
