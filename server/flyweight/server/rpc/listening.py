"""The port that calls come to, and what gRPC's core is told of the limits of its connections."""

import resource
from typing import Final, Protocol

import grpc

from flyweight.server.addresses import address_of, is_unix, probe
from flyweight.server.errors import StartError
from flyweight.server.security.certificates import Pems, watched_pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import Compression, ConnectionSettings, ServerSettings

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
    """A server that does not listen yet."""

    def listen(self, address: str, pems: Reloaded[Pems] | None) -> int:
        """Listen, with TLS if there are PEM files for it; return the port, which a Unix socket has none of.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        ...


def bind(server: Listener, settings: ServerSettings) -> int:
    """Take the port for a server, without answering on it yet, and return its number; 0 of a Unix socket.

    Raises:
        StartError: the address cannot be listened on, or a TLS file cannot be used.
    """
    address = address_of(settings.host, settings.port)
    # Asked of the kernel first: it says why, where gRPC's core only says that it failed, in a log of its own.
    probe(settings.host, settings.port)
    pems = None if settings.tls is None else watched_pems(settings.tls)
    try:
        number = server.listen(address, pems)
    except RuntimeError as error:
        raise StartError(f"{address} cannot be listened on; choose another --host or --port.") from error
    return 0 if is_unix(address) else number


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
        ("grpc.max_allowed_incoming_connections", most_connections(connections)),
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


def most_connections(connections: ConnectionSettings) -> int:
    """Return how many connections there may be at one time; half of the files, where nothing is said."""
    if connections.max_connections:
        return connections.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_NEVER, max(_FEWEST_CONNECTIONS, files // 2)) if files != resource.RLIM_INFINITY else _NEVER


def _milliseconds(seconds: float) -> int:
    """Return a time as gRPC takes it; 0 seconds are never."""
    return min(_NEVER, max(1, round(seconds * 1000))) if seconds else _NEVER
