"""The port that calls come to, and how many connections and streams it has."""

import resource
from typing import Final, Protocol

from flyweight.server.addresses import address_of, is_unix, probe
from flyweight.server.errors import StartError
from flyweight.server.security.certificates import Pems, watched_pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import ConnectionSettings, ServerSettings

# As good as no limit.
_UNLIMITED: Final = (1 << 31) - 1
# Enough for any honest client of a process that may open next to no files.
_FEWEST_CONNECTIONS: Final = 16
# Streams of one connection beyond those that the server accepts: what is refused at once, health, metadata.
# A client at this limit waits with its next call instead of sending it, and so would a probe on its channel.
_SPARE_STREAMS: Final = 1024


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


def most_connections(connections: ConnectionSettings) -> int:
    """Return how many connections there may be at one time; half of the files, where nothing is said."""
    if connections.max_connections:
        return connections.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _UNLIMITED
    return min(_UNLIMITED, max(_FEWEST_CONNECTIONS, files // 2))
