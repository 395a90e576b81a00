"""A run of the tests has its servers speak over the transport that it was asked for."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
# GRPC_ALLOW_TRUE_BINARY_METADATA, which gRPC's core announces and the wire does not.
TRUE_BINARY_METADATA = 0xFE03
PATIENCE_SECONDS = 60


def exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        assert more
        found += more
    return found


def settings_of(address: str) -> set[int]:
    """Return which settings a server announces in its first frame (RFC 9113, sections 3.4 and 6.5.1)."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
        connection.sendall(PREFACE + NO_SETTINGS)
        head = exactly(connection, 9)
        assert head[3] == 4
        payload = exactly(connection, int.from_bytes(head[:3], "big"))
    return {int.from_bytes(payload[at : at + 2], "big") for at in range(0, len(payload), 6)}


def test_the_server_speaks_over_the_transport_of_the_run(
    start_server: Callable[..., Any], server_repository: Path, transport: str
) -> None:
    settings = settings_of(start_server(server_repository).address)
    assert (TRUE_BINARY_METADATA in settings) == (transport == "grpcio")


@pytest.mark.parametrize("named", ["grpcio", "wire"])
def test_a_test_may_name_another(
    start_server: Callable[..., Any], server_repository: Path, named: str
) -> None:
    settings = settings_of(start_server(server_repository, "--transport", named).address)
    assert (TRUE_BINARY_METADATA in settings) == (named == "grpcio")
