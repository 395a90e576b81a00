"""Certificates, access files, and a small server that says who called."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from flyweight.server.rpc.listening import bind, channel_options
from flyweight.server.rpc.peers import peer_of
from flyweight.server.settings import ServerSettings, TlsFiles

PATIENCE_SECONDS = 30


class Authority:
    """A certificate authority of its own, the server's files from it, and clients that trust it."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        folder.mkdir(parents=True, exist_ok=True)
        certificate = self.authority.issue_cert("127.0.0.1", "localhost")
        self.files.key.write_bytes(certificate.private_key_pem.bytes())
        self.files.certificate.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        assert self.files.client_authority is not None
        self.files.client_authority.write_bytes(self.root)

    @property
    def root(self) -> bytes:
        return bytes(self.authority.cert_pem.bytes())

    def client(self, *names: str, common_name: str | None = None) -> grpc.ChannelCredentials:
        """Return the credentials of a client with a certificate of these names, or without one."""
        if not names:
            return grpc.ssl_channel_credentials(self.root)
        certificate = self.authority.issue_cert(*names, common_name=common_name)
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        return grpc.ssl_channel_credentials(self.root, certificate.private_key_pem.bytes(), chain)


class Echo:
    """A grpcio server at our port, with our limits, whose one RPC answers with the caller's peer."""

    path = "/test.Echo/Peer"

    def __init__(self, settings: ServerSettings) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool, options=channel_options(settings))
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", {"Peer": handler}),)
        )
        self.port = bind(self._server, settings)
        self._server.start()
        self.seen: list[Any] = []

    def _answer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen.append(peer_of(context))
        return body

    def call(self, channel: grpc.Channel, body: bytes = b"", **options: Any) -> bytes:
        answer: bytes = channel.unary_unary(self.path)(body, timeout=PATIENCE_SECONDS, **options)
        return answer

    def stop(self) -> None:
        self._server.stop(None).wait(PATIENCE_SECONDS)
        self._pool.shutdown()


@pytest.fixture
def make_authority(tmp_path: Path) -> Callable[[str], Authority]:
    return lambda name: Authority(tmp_path / name)


@pytest.fixture
def start_echo() -> Iterator[Callable[..., Echo]]:
    running: list[Echo] = []

    def start(**settings: Any) -> Echo:
        running.append(Echo(replace(ServerSettings(Path("unused"), port=0), **settings)))
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
