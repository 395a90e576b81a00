"""What brings calls over the network: the wire, or gRPC's core."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from flyweight.server.rpc.listening import most_connections, most_streams
from flyweight.server.rpc.live_call import LiveCall
from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import Compression, ServerSettings, Transport
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.server import WireServer


class TransportServer(Protocol):
    """A server that brings calls. Have it `listen`, `start` it, then call `take` again and again."""

    def listen(self, address: str, pems: Reloaded[Pems] | None) -> int:
        """Listen, with TLS if there are PEM files for it; return the port.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        ...

    def start(self) -> None:
        """Accept connections; calls come out of `take`."""
        ...

    def take(self, until_monotonic: float | None) -> bool | None:
        """Wait for something to happen, and handle it.

        Args:
            until_monotonic: how long to wait; None takes what is there already.

        Returns:
            True when something happened, False when nothing did, None when all is shut down.
        """
        ...

    def drain(self, until_monotonic: float) -> None:
        """Have clients go elsewhere with their next calls, as far as they can be told; for any thread."""
        ...

    def shut_down(self) -> None:
        """Close the port and cut every call; `take` goes on until all is over."""
        ...


def make_server(
    settings: ServerSettings, on_call: Callable[[LiveCall], None], is_busy: Callable[[], bool]
) -> TransportServer:
    """Return a server of the transport that the settings name, not bound yet.

    Args:
        settings: of the server.
        on_call: is given each call.
        is_busy: tells whether models run while calls come.
    """
    if settings.transport is Transport.GRPCIO:
        # Not at the top: loading gRPC takes a tenth of a second, and memory.
        from flyweight.server.rpc.core import CoreServer
        from flyweight.server.rpc.core_options import channel_options

        return CoreServer(channel_options(settings), on_call)
    terms = settings.connections
    limits = Limits(most_streams(settings), terms.max_metadata_bytes, terms.min_ping_seconds)
    terms = replace(terms, max_connections=most_connections(terms))
    packs = terms.compression is Compression.GZIP
    return WireServer(limits, settings.max_message_bytes, on_call, terms, packs=packs, is_busy=is_busy)
