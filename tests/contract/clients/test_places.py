"""Clients that come by TLS, with a certificate or without, and clients that come by a Unix socket."""

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.server.addresses import address_of, unix_path
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.method import Unary
from flyweight.server.settings import ServerSettings, Transport
from tests.contract.clients.conversation import PATIENCE_SECONDS
from tests.contract.clients.programs import find, run
from tests.runs import NoRuns
from tests.server.authority import Authority

pytestmark = pytest.mark.system

PATH = "/flyweight.test.Echo/Same"
PACKAGE = "nghttp2-client"
HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")
BODY = bytes(range(256)) * 1000
CALLS = 400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["tls", "certificates", "unix", "unix+tls"])
def address(
    request: pytest.FixtureRequest,
    authority: Authority,
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Return the address of a server at one place after the other."""
    place = request.param
    files = authority.files if place == "certificates" else replace(authority.files, client_authority=None)
    settings = ServerSettings(
        Path("unused"),
        host=f"unix:{tmp_path_factory.mktemp('place')}/socket" if "unix" in place else "127.0.0.1",
        port=0,
        transport=Transport(transport),
        tls=None if place == "unix" else files,
        max_in_flight=512,
    )
    carrier = Carrier(settings, [Unary(PATH, lambda body, _: bytes(body))], NoRuns())
    port = carrier.bind()
    carrier.start()
    yield address_of(settings.host, port)
    carrier.stop(0)


@pytest.fixture
def is_encrypted(request: pytest.FixtureRequest, address: str) -> bool:
    return bool(request.node.callspec.params["address"] != "unix")


@pytest.fixture
def context(authority: Authority, is_encrypted: bool) -> ssl.SSLContext | None:
    """Return what a client of Python's own TLS needs; it has a certificate, whether it is asked or not."""
    return authority.context("client.example.org") if is_encrypted else None


def test_grpcio(address: str, authority: Authority, is_encrypted: bool) -> None:
    options = [("grpc.ssl_target_name_override", "localhost")] if is_encrypted else []
    credentials = authority.client("client.example.org")
    with (
        grpc.secure_channel(address, credentials, options) if is_encrypted else grpc.insecure_channel(address)
    ) as channel:
        method: Any = channel.unary_unary(PATH)  # pyright: ignore[reportCallIssue] -- bytes both ways
        asked = [method.future(BODY, timeout=PATIENCE_SECONDS) for _ in range(CALLS // 10)]
        assert {each.result() for each in asked} == {BODY}


def test_grpclib(address: str, context: ssl.SSLContext | None) -> None:
    pytest.importorskip("grpclib", reason="grpclib is not there: pip install it")
    from grpclib.client import Channel
    from grpclib.config import Configuration
    from grpclib.const import Cardinality

    from tests.contract.clients.over_grpclib import Bytes

    async def ask() -> bytes:
        if address.startswith("unix:"):
            where: dict[str, Any] = {"path": str(unix_path(address))}
        else:
            host, _, port = address.rpartition(":")
            where = {"host": host, "port": int(port)}
        config = Configuration(ssl_target_name_override="localhost")
        async with Channel(**where, codec=Bytes(), ssl=context, config=config) as channel:
            request = channel.request(PATH, Cardinality.UNARY_UNARY, bytes, bytes, timeout=PATIENCE_SECONDS)
            async with request as stream:
                await stream.send_message(BODY, end=True)
                answer = await stream.recv_message()
                await stream.recv_trailing_metadata()
            # Or it is left open: nobody waits for the end of TLS once the loop is closed.
            channel._protocol.connection._transport.abort()
            return bytes(answer or b"")

    assert asyncio.run(ask()) == BODY


@pytest.fixture
def message(tmp_path: Path) -> str:
    """Return a file with a message as gRPC carries it."""
    (tmp_path / "message").write_bytes(b"\0" + len(BODY).to_bytes(4, "big") + BODY)
    return str(tmp_path / "message")


def test_h2load(address: str, is_encrypted: bool, message: str, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["address"] == "certificates":
        pytest.skip("h2load has no client certificates")
    h2load = find("h2load", "FLYWEIGHT_H2LOAD", PACKAGE)
    scheme = "https" if is_encrypted else "http"
    place = "localhost" if address.startswith("unix:") else address
    base = ("-B", address) if address.startswith("unix:") else ()
    options = ("-n", str(CALLS), "-c", "8", "-m", "8", *HEADERS, *base, "-d", message)
    done = run(h2load, *options, f"{scheme}://{place}{PATH}")
    said = done.stdout.decode()
    assert f"{CALLS} succeeded, 0 failed, 0 errored, 0 timeout" in said, said
    assert f"{CALLS} 2xx" in said
