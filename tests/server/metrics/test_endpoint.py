"""The HTTP port beside gRPC, and callers of it who do not behave."""

import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from flyweight.server.metrics import endpoint
from flyweight.server.metrics.endpoint import Endpoint

SOON = 10.0


@pytest.fixture
def served() -> Iterator[Endpoint]:
    made = Endpoint(CollectorRegistry(), "127.0.0.1", 0)
    yield made
    made.close()


def test_who_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch, served: Endpoint) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", served.port), SOON) as silent:
        assert silent.recv(1) == b""


def test_a_reset_in_the_middle_is_no_noise(
    monkeypatch: pytest.MonkeyPatch, served: Endpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()
    handle = endpoint._Server.handle_error

    def note(*arguments: object) -> None:
        handle(*arguments)  # type: ignore[arg-type]
        told.set()

    monkeypatch.setattr(endpoint._Server, "handle_error", note)
    with socket.create_connection(("127.0.0.1", served.port), SOON) as rude:
        rude.sendall(b"GET /met")
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert told.wait(SOON)
    assert capfd.readouterr().err == ""
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/healthz", timeout=SOON) as answer:
        assert answer.status == 200
