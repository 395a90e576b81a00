"""The port: what is told when it cannot be had, and whom TLS lets in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.errors import StartError
from flyweight.server.rpc.carrier_grpcio import GrpcioCarrier
from flyweight.server.settings import ServerSettings, TlsFiles, Transport

PATIENCE_SECONDS = 30
SERVICE = "/inference.GRPCInferenceService"
LIVE = f"{SERVICE}/ServerLive"
SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=4)

Serve = Callable[..., Any]


def carrier_of(settings: ServerSettings) -> GrpcioCarrier:
    return GrpcioCarrier(settings, [], Scheduler(1))


def test_a_port_in_use_is_told_in_a_sentence(served: Any) -> None:
    with pytest.raises(StartError, match=f"127.0.0.1:{served.port} cannot be listened on.*--port"):
        carrier_of(replace(SETTINGS, port=served.port)).bind()


def test_a_foreign_address_is_told_in_a_sentence() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        carrier_of(replace(SETTINGS, host="192.0.2.1")).bind()


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


def test_an_unreadable_key_is_named(tls: tuple[trustme.CA, TlsFiles]) -> None:
    files = replace(tls[1], key=tls[1].key.with_name("missing.key"))
    with pytest.raises(StartError, match=r"missing\.key, the TLS key, cannot be read"):
        carrier_of(replace(SETTINGS, tls=files)).bind()


def test_tls_files_that_are_no_pem_are_named(tls: tuple[trustme.CA, TlsFiles]) -> None:
    files = tls[1]
    files.certificate.write_text("no certificate")
    with pytest.raises(
        StartError, match=r"certificate .*server\.pem and the key .*server\.key.* cannot be used"
    ):
        carrier_of(replace(SETTINGS, tls=files)).bind()


def test_the_wire_says_that_it_has_no_tls_yet(tls: tuple[trustme.CA, TlsFiles]) -> None:
    settings = replace(SETTINGS, tls=tls[1], transport=Transport.WIRE)
    with pytest.raises(StartError, match="--transport grpcio"):
        carrier_of(settings).bind()
