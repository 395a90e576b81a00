"""What brings calls over the network: gRPC's core, or the wire."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from flyweight.server.rpc.core import CoreCall, CoreServer
from flyweight.server.rpc.listening import channel_options, most_connections, most_streams
from flyweight.server.settings import Compression, ServerSettings, Transport
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.server import WireServer

TransportCall: TypeAlias = CoreCall | WireCall
TransportServer: TypeAlias = CoreServer | WireServer


def make_server(
    settings: ServerSettings, on_call: Callable[[TransportCall], None], is_busy: Callable[[], bool]
) -> TransportServer:
    """Return a server of the transport that the settings name, not bound yet.

    Args:
        settings: of the server.
        on_call: is given each call.
        is_busy: tells whether models run while calls come.
    """
    if settings.transport is Transport.WIRE:
        terms = settings.connections
        limits = Limits(most_streams(settings), terms.max_metadata_bytes, terms.min_ping_seconds)
        terms = replace(terms, max_connections=most_connections(terms))
        packs = terms.compression is Compression.GZIP
        return WireServer(limits, settings.max_message_bytes, on_call, terms, packs=packs, is_busy=is_busy)
    return CoreServer(channel_options(settings), on_call)
