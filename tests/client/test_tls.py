"""Encrypted channels, against a real TLS server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from flyweight.client import RetryPolicy, Settings, TlsSettings, Unavailable
from flyweight.client.testing import FakeServer, serve_fake

X = {"x": np.zeros(1)}
ONCE = RetryPolicy(max_attempts=1)


@dataclass(frozen=True)
class Secured:
    server: FakeServer
    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server named inference.example that asks for a client certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    ours = authority.issue_cert("inference.example")
    theirs = authority.issue_cert("client.example")
    files = Secured.__dataclass_fields__
    paths = {name: folder / f"{name}.pem" for name in files if name != "server"}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    theirs.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    theirs.private_key_pem.write_to_path(str(paths["key"]))
    credentials = grpc.ssl_server_credentials(
        [(ours.private_key_pem.bytes(), ours.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    with serve_fake({"echo": dict}, credentials=credentials) as server:
        yield Secured(server, **paths)


def ask(call: Any, secured: Secured, tls: TlsSettings | None, **settings: Any) -> Any:
    chosen = Settings(tls=tls, retry=ONCE, **settings)
    return call(secured.server.address, "predict", "echo", X, settings=chosen, timeout_seconds=10)


def test_both_sides_prove_who_they_are(call: Any, secured: Secured) -> None:
    tls = TlsSettings(secured.ca, secured.certificate, secured.key, "inference.example")
    prediction = ask(call, secured, tls, bearer_token="t")
    assert prediction.variant == "baseline"
    assert secured.server.received[-1].metadata["authorization"] == "Bearer t"


def test_a_server_with_another_name_is_not_trusted(call: Any, secured: Secured) -> None:
    with pytest.raises(Unavailable):
        ask(call, secured, TlsSettings(secured.ca, secured.certificate, secured.key))


def test_a_server_of_another_authority_is_not_trusted(call: Any, secured: Secured, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    with pytest.raises(Unavailable):
        ask(call, secured, TlsSettings(stranger, secured.certificate, secured.key, "inference.example"))


def test_the_sentence_points_at_tls(call: Any, secured: Secured) -> None:
    with pytest.raises(Unavailable, match=r"Verification Check failed.*this client uses TLS"):
        ask(call, secured, TlsSettings(secured.ca, secured.certificate, secured.key))
    with pytest.raises(Unavailable, match="this client uses no TLS: if the server does, give --tls or --ca"):
        ask(call, secured, None)


def test_a_client_without_certificate_gets_no_answer(call: Any, secured: Secured) -> None:
    with pytest.raises(Unavailable):
        ask(call, secured, TlsSettings(secured.ca, server_name="inference.example"))


def test_a_client_that_speaks_in_the_clear_gets_no_answer(call: Any, secured: Secured) -> None:
    with pytest.raises(Unavailable):
        ask(call, secured, None)
