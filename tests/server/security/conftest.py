"""Certificates, access files, and a small server that says who called."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.server.rpc.call import Call, Peer
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.method import Unary
from flyweight.server.settings import ServerSettings, Transport
from tests.runs import NoRuns
from tests.server.authority import Authority

PATIENCE_SECONDS = 30


class Echo:
    """A server at our port, with our limits, whose one RPC answers what it was asked; it knows who asked."""

    path = "/test.Echo/Peer"

    def __init__(self, settings: ServerSettings) -> None:
        self.seen: list[Peer] = []
        self._carrier = Carrier(settings, [Unary(self.path, self._answer)], NoRuns())
        self.port = self._carrier.bind()
        self._carrier.start()

    def _answer(self, body: bytes, call: Call) -> bytes:
        self.seen.append(call.peer())
        return body

    def call(self, channel: grpc.Channel, body: bytes = b"", **options: Any) -> bytes:
        answer: bytes = channel.unary_unary(self.path)(body, timeout=PATIENCE_SECONDS, **options)
        return answer

    def stop(self) -> None:
        self._carrier.stop(0)


@pytest.fixture
def make_authority(tmp_path: Path) -> Callable[[str], Authority]:
    return lambda name: Authority(tmp_path / name)


@pytest.fixture
def start_echo(transport: str) -> Iterator[Callable[..., Echo]]:
    running: list[Echo] = []

    def start(**settings: Any) -> Echo:
        always = ServerSettings(Path("unused"), port=0, transport=Transport(transport))
        running.append(Echo(replace(always, **settings)))
        return running[-1]

    yield start
    for echo in running:
        echo.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., grpc.Channel]]:
    """Return a function that opens a channel, with TLS if credentials are given; none shares connections."""
    channels: list[grpc.Channel] = []

    def open_channel(
        port: int, credentials: grpc.ChannelCredentials | None = None, options: Sequence[tuple[str, int]] = ()
    ) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), *options]
        address = f"127.0.0.1:{port}"
        channels.append(
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()
