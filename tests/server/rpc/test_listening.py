"""The port: what is told when it cannot be had, and whom TLS lets in."""

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.errors import StartError
from flyweight.server.rpc.call import Call, Peer
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.method import Unary
from flyweight.server.settings import ServerSettings, TlsFiles, Transport

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
LIVE = f"{SERVICE}/ServerLive"
SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=4)

Serve = Callable[..., Any]


@pytest.fixture(params=Transport)
def bind(request: pytest.FixtureRequest) -> Callable[..., int]:
    """Return a function that has a carrier over either transport take its port."""

    def take_port(**settings: Any) -> int:
        changed = replace(SETTINGS, transport=request.param, **settings)
        return Carrier(changed, [], Scheduler(1)).bind()

    return take_port


def test_a_port_in_use_is_told_in_a_sentence(served: Any, bind: Callable[..., int]) -> None:
    with pytest.raises(StartError, match=f"127.0.0.1:{served.port} cannot be listened on.*--port"):
        bind(port=served.port)


def test_a_foreign_address_is_told_in_a_sentence(bind: Callable[..., int]) -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        bind(host="192.0.2.1")


@pytest.fixture
def at_socket(tmp_path: Path) -> ServerSettings:
    return replace(SETTINGS, host=f"unix:{tmp_path}/socket")


def test_a_unix_socket_is_served_and_its_file_goes_with_the_server(
    serve: Serve, at_socket: ServerSettings, tmp_path: Path
) -> None:
    peers: list[Peer] = []

    def who(body: bytes, call: Call) -> bytes:
        peers.append(call.peer())
        return body

    served = serve(at_socket, methods=(Unary("/t.S/Who", who),))
    assert served.port == 0
    assert served.call("/t.S/Who", b"me") == b"me"
    assert peers == [Peer("unix:")]
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    served.close()
    assert [*tmp_path.iterdir()] == []


def test_who_may_connect_to_a_unix_socket_is_up_to_the_umask(
    serve: Serve, at_socket: ServerSettings, tmp_path: Path
) -> None:
    before = os.umask(0o117)
    try:
        serve(at_socket)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o660


def test_a_unix_socket_of_a_living_server_is_refused_and_lives_on(
    serve: Serve, at_socket: ServerSettings, bind: Callable[..., int]
) -> None:
    served = serve(at_socket)
    with pytest.raises(StartError, match="has a server already"):
        bind(host=at_socket.host)
    ask_live(served.channel)


def test_what_a_dead_server_left_is_replaced(serve: Serve, at_socket: ServerSettings, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "socket"))
    ask_live(serve(at_socket).channel)


def test_tls_is_spoken_at_a_unix_socket_too(
    serve: Serve, at_socket: ServerSettings, tls: tuple[trustme.CA, TlsFiles]
) -> None:
    authority, files = tls
    served = serve(replace(at_socket, tls=replace(files, client_authority=None)))
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = [("grpc.ssl_target_name_override", "127.0.0.1")]
    with grpc.secure_channel(served.address, credentials, options) as channel:
        ask_live(channel)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[trustme.CA, TlsFiles]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(files.key)
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(files.certificate, append=number > 0)
    assert files.client_authority is not None
    authority.cert_pem.write_to_path(files.client_authority)
    return authority, files


def ask_live(channel: Any) -> bytes:
    answer: bytes = channel.unary_unary(LIVE)(b"", timeout=PATIENCE_SECONDS)
    return answer


def test_tls_with_client_certificates_lets_only_known_clients_in(
    serve: Serve, tls: tuple[trustme.CA, TlsFiles]
) -> None:
    authority, files = tls
    served = serve(replace(SETTINGS, tls=files))
    client = authority.issue_cert("client@example.org")
    root = authority.cert_pem.bytes()
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    known = grpc.ssl_channel_credentials(root, client.private_key_pem.bytes(), chain)
    with grpc.secure_channel(f"127.0.0.1:{served.port}", known) as channel:
        ask_live(channel)
    stranger = grpc.ssl_channel_credentials(root)
    with grpc.secure_channel(f"127.0.0.1:{served.port}", stranger) as channel, pytest.raises(grpc.RpcError):
        ask_live(channel)


def test_an_unreadable_key_is_named(tls: tuple[trustme.CA, TlsFiles], bind: Callable[..., int]) -> None:
    files = replace(tls[1], key=tls[1].key.with_name("missing.key"))
    with pytest.raises(StartError, match=r"missing\.key, the TLS key, cannot be read"):
        bind(tls=files)


def test_tls_files_that_are_no_pem_are_named(
    tls: tuple[trustme.CA, TlsFiles], bind: Callable[..., int]
) -> None:
    files = tls[1]
    files.certificate.write_text("no certificate")
    with pytest.raises(
        StartError, match=r"certificate .*server\.pem and the key .*server\.key.* cannot be used"
    ):
        bind(tls=files)
