"""The port that the grpcio carrier listens on, its TLS credentials, and the limits of its connections."""

import resource
import socket
from typing import Final, Protocol

import grpc

from flyweight.server.errors import StartError
from flyweight.server.security.certificates import Pems, watched_pems
from flyweight.server.settings import Compression, ConnectionSettings, ServerSettings, TlsFiles

# gRPC's word for never, in milliseconds (channel_arg_names.h: "INT_MAX means unlimited").
_NEVER: Final = (1 << 31) - 1
# Enough for any honest client of a process that may open next to no files.
_FEWEST_CONNECTIONS: Final = 16
# Streams of one connection beyond those that the server accepts: what is refused at once, health, metadata.
# A client at this limit waits with its next call instead of sending it, and so would a probe on its channel.
_SPARE_STREAMS: Final = 1024

_ALGORITHM: Final = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
}


class Listener(Protocol):
    """A server that does not listen yet; grpc.Server is one."""

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS; return the port, or 0 or a RuntimeError when that cannot be done."""
        ...

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen with TLS; return the port, or 0 or a RuntimeError when that cannot be done."""
        ...


def bind(server: Listener, settings: ServerSettings) -> int:
    """Take the port for a server, without answering on it yet, and return its number.

    Raises:
        StartError: the address cannot be listened on, or a TLS file cannot be used.
    """
    host, port = settings.host, settings.port
    # Asked of the kernel first: it says why, where grpcio only says that it failed, in a log of its own.
    _probe(host, port)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    credentials = None if settings.tls is None else _credentials(settings.tls)
    try:
        if credentials is None:
            number = server.add_insecure_port(address)
        else:
            number = server.add_secure_port(address, credentials)
    except RuntimeError:
        number = 0
    if not number:
        raise StartError(f"{address} cannot be listened on; choose another --host or --port.")
    return number


def most_streams(settings: ServerSettings) -> int:
    """Return how many calls one connection may have open."""
    return settings.max_in_flight + _SPARE_STREAMS


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Return grpc core's channel arguments for a server of these settings."""
    return [
        # Without this a second server silently shares the port and takes half of the connections.
        ("grpc.so_reuseport", 0),
        # What a compressed message holds is measured too, before it is unpacked whole.
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # A response is as large as the model makes it; refusing it after the work is done helps nobody.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", most_streams(settings)),
        *_connection_options(settings.connections),
    ]


def _connection_options(connections: ConnectionSettings) -> list[tuple[str, int]]:
    algorithm = _ALGORITHM[connections.compression]
    return [
        ("grpc.max_allowed_incoming_connections", connections.max_connections or _connections_by_files()),
        # Both the same: between them gRPC fails a random part of the calls, which nobody can make sense of.
        ("grpc.max_metadata_size", connections.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", connections.max_metadata_bytes),
        ("grpc.server_handshake_timeout_ms", _milliseconds(connections.handshake_seconds)),
        ("grpc.keepalive_time_ms", _milliseconds(connections.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _milliseconds(connections.keepalive_timeout_seconds)),
        # The core waits for the answer to a ping for this long, a minute by itself, whatever stands above.
        ("grpc.http2.ping_timeout_ms", _milliseconds(connections.keepalive_timeout_seconds)),
        # Both ways also between calls: a client wants to know that its next one will get through, and the
        # server that a silent client is still there.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(connections.min_ping_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(connections.max_connection_idle_seconds)),
        ("grpc.max_connection_age_ms", _milliseconds(connections.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(connections.max_connection_age_grace_seconds)),
        ("grpc.default_compression_algorithm", int(algorithm)),
    ]


def _connections_by_files() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_NEVER, max(_FEWEST_CONNECTIONS, files // 2)) if files != resource.RLIM_INFINITY else _NEVER


def _milliseconds(seconds: float) -> int:
    """Return a time as gRPC takes it; 0 seconds are never."""
    return min(_NEVER, max(1, round(seconds * 1000))) if seconds else _NEVER


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow their files.

    gRPC asks for them at every handshake, so a change is seen by the first client after it, and connections
    that are open stay as they are.
    """
    pems = watched_pems(tls)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(pems.content) if pems.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(pems.content),
        # None is for no change, which the stubs do not know.
        fetch,  # type: ignore[arg-type]
        require_client_authentication=tls.client_authority is not None,
    )


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pems.key, pems.certificate)], root_certificates=pems.client_authority
    )


def _probe(host: str, port: int) -> None:
    """Listen on an address for a moment.

    Raises:
        StartError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that just ended does not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        # A host that cannot be a name at all is a UnicodeError to Python's look-up.
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(
                f"{host}:{port} cannot be listened on ({reason}); choose another with --host or "
                "--port, or --port 0 for any free port."
            ) from error
