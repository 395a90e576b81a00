"""What gRPC's core is told of the limits of its connections."""

from typing import Final

import grpc

from flyweight.server.rpc.listening import most_connections, most_streams
from flyweight.server.settings import Compression, ConnectionSettings, ServerSettings

# gRPC's word for never, in milliseconds (channel_arg_names.h: "INT_MAX means unlimited").
_NEVER: Final = (1 << 31) - 1

_ALGORITHM: Final = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
}


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


def _milliseconds(seconds: float) -> int:
    """Return a time as gRPC takes it; 0 seconds are never."""
    return min(_NEVER, max(1, round(seconds * 1000))) if seconds else _NEVER
