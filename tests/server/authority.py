"""A certificate authority of its own, the server's files from it, and clients that trust it."""

import ssl
from pathlib import Path

import grpc
import trustme

from flyweight.server.settings import TlsFiles


class Authority:
    """Writes the server's three files into a folder."""

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
        return self.bearing(certificate)

    def bearing(self, certificate: trustme.LeafCert) -> grpc.ChannelCredentials:
        """Return the credentials of a client with a certificate of whomever."""
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        return grpc.ssl_channel_credentials(self.root, certificate.private_key_pem.bytes(), chain)

    def context(self, *names: str, protocols: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
        """Return what a client of Python's `ssl` needs, with a certificate if there are names for it."""
        context = ssl.create_default_context(cadata=self.root.decode())
        if protocols:
            context.set_alpn_protocols(list(protocols))
        if names:
            self.authority.issue_cert(*names).configure_cert(context)
        return context
