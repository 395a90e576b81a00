"""The server's certificate, its key, and the authority of its clients, checked before they are used."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from flyweight.server.errors import StartError
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import TlsFiles, read_pem


@dataclass(frozen=True, slots=True)
class Pems:
    """The contents of PEM files that fit together."""

    certificate: bytes
    key: bytes
    client_authority: bytes | None


def watched_pems(tls: TlsFiles) -> Reloaded[Pems]:
    """Return the files' contents, to be refreshed as connections come.

    Raises:
        StartError: a file cannot be read, or they do not fit together.
    """
    paths = (tls.certificate, tls.key, tls.client_authority)
    return Reloaded([path for path in paths if path is not None], lambda: read_pems(tls))


def read_pems(tls: TlsFiles) -> Pems:
    """Read the files and see that a server can be run with them.

    The check is OpenSSL's, in Python's own `ssl`: grpcio tells what is wrong with a file in a log of its own,
    and only when the first client has come.

    Raises:
        StartError: a file cannot be read, or they do not fit together.
    """
    authority = tls.client_authority
    pems = Pems(
        certificate=read_pem(tls.certificate, "TLS certificate"),
        key=read_pem(tls.key, "TLS key"),
        client_authority=read_pem(authority, "TLS client authority") if authority else None,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without an answer OpenSSL would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        raise StartError(
            f"The TLS certificate {tls.certificate} and the key {tls.key} cannot be used ({_reason(error)}); "
            "give files in PEM form, the key being the certificate's and without a password."
        ) from error
    if authority is not None:
        _check_authority(context, authority)
    return pems


def _check_authority(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise StartError(
            f"The TLS client authority {authority} cannot be used ({_reason(error)}); give a file with "
            "certificates in PEM form."
        ) from error


def _reason(error: OSError | ValueError) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
