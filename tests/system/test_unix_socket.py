"""A real server at a Unix socket: who finds it, and what is left of it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 60
COMMAND = Path(sys.executable).with_name("flyweight")
METRICS = ("--metrics-port", "0")


@pytest.fixture
def host(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/grpc.sock"


def ask(*arguments: str) -> str:
    """Return what our own client says of a server."""
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    return done.stdout


def test_the_ready_line_is_what_clients_take(
    start_server: Callable[..., Any], server_repository: Path, host: str
) -> None:
    server = start_server(server_repository, "--host", host, ports=METRICS)
    assert server.address == host
    assert "tiny" in ask("models", "--url", host)
    # Control is open: nobody but this machine reaches it.
    ask("load", "tiny", "--url", host)
    with grpc.insecure_channel(host) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_file_goes_with_the_server_and_one_that_stays_is_no_hindrance(
    start_server: Callable[..., Any], server_repository: Path, host: str
) -> None:
    path = Path(host.removeprefix("unix:"))
    killed = start_server(server_repository, "--host", host, ports=METRICS)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert path.is_socket()
    server = start_server(server_repository, "--host", host, ports=METRICS)
    assert "tiny" in ask("models", "--url", host)
    server.signal()
    assert server.wait() == 0
    assert not path.exists()


def test_a_second_server_says_that_there_is_one(
    start_server: Callable[..., Any], server_repository: Path, host: str
) -> None:
    start_server(server_repository, "--host", host, ports=METRICS)
    second = start_server(server_repository, "--host", host, ports=METRICS, ready=False)
    assert second.wait() == 2
    assert "has a server already; stop it" in second.log.read_text()
    assert "tiny" in ask("models", "--url", host)


def test_a_path_that_is_too_long_is_told(start_server: Callable[..., Any], server_repository: Path) -> None:
    server = start_server(server_repository, "--host", f"unix:/tmp/{'long' * 30}", ports=METRICS, ready=False)
    assert server.wait() == 2
    said = server.log.read_text()
    assert "a path of 125 bytes, and 107 are the most" in said
    assert "Traceback" not in said
