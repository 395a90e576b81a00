"""The server's certificate, its key, and the authority of its clients, checked before they are used."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
        _load_chain(context, pems)
    except (OSError, ValueError) as error:
        raise StartError(
            f"The TLS certificate {tls.certificate} and the key {tls.key} cannot be used "
            f"({reason_of(error)}); give files in PEM form, the key being the certificate's and without a "
            "password."
        ) from error
    try:
        _load_authority(context, pems)
    except (OSError, ValueError) as error:
        raise StartError(
            f"The TLS client authority {authority} cannot be used ({reason_of(error)}); give a file with "
            "certificates in PEM form."
        ) from error
    return pems


def server_context(pems: Pems) -> ssl.SSLContext:
    """Return what the handshakes of a server with these files are made with.

    Raises:
        OSError: it cannot be made; of what `read_pems` returned only for want of memory or open files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_chain(context, pems)
    _load_authority(context, pems)
    return context


def reason_of(error: OSError | ValueError) -> str:
    """Return what OpenSSL or the kernel has to say, in lower case."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()


def _load_chain(context: ssl.SSLContext, pems: Pems) -> None:
    with _as_file(pems.certificate) as certificate, _as_file(pems.key) as key:
        # Without an answer OpenSSL would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(certificate, key, password="")


def _load_authority(context: ssl.SSLContext, pems: Pems) -> None:
    if pems.client_authority is None:
        return
    with _as_file(pems.client_authority) as authority:
        context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    # An authority below another one may be named alone, as gRPC's core has it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes to OpenSSL, which loads certificates and keys from files only; this one is in no folder.

    The bytes rather than the files they are from: these may change between two looks.
    """
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
