"""TLS as gRPC's core takes it."""

import grpc

from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded


def credentials_of(pems: Reloaded[Pems]) -> grpc.ServerCredentials:
    """Return credentials that follow their files.

    gRPC asks for them at every handshake, so a change is seen by the first client after it, and connections
    that are open stay as they are.
    """

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(pems.content) if pems.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(pems.content),
        # None is for no change, which the stubs do not know.
        fetch,  # type: ignore[arg-type]
        require_client_authentication=pems.content.client_authority is not None,
    )


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.certificate)], root_certificates=pems.client_authority
    )
