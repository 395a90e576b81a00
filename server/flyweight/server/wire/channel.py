"""A connected socket as bytes in and bytes out, with TLS or without."""

import errno
import logging
import socket
from typing import Final, Protocol

_log = logging.getLogger(__name__)

# What is read of a socket at a time: some hundred small requests, and a tenth of a large one.
READ_BYTES: Final = 256 << 10
# tcp(7); the standard library knows it by no name before Python 3.12.
_TCP_NOTSENT_LOWAT: Final = 25
# What the kernel keeps of what a client does not read yet, beyond what is under way: as much as we do.
_MOST_NOT_SENT_BYTES: Final = 256 << 10
_GONE: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNABORTED})


class Channel(Protocol):
    """A connected socket that never waits."""

    def fileno(self) -> int:
        """Return the socket's number."""
        ...

    def receive(self) -> bytes | None:
        """Return what has come: None for nothing yet, no bytes when the other end is gone."""
        ...

    def expect(self, count: int) -> None:
        """Have the socket readable when so many bytes have come, or it is over; 1 is as sockets are."""
        ...

    def send(self, octets: bytes | memoryview) -> int | None:
        """Return how many bytes were taken: 0 when there is no room yet, None when the other end is gone.

        What was not taken is what is sent next: some of it may be on its way already.
        """
        ...

    @property
    def is_full(self) -> bool:
        """Return whether a `send` that took nothing waits for room, and not for the other end to speak."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it, "ipv4:127.0.0.1:1234"."""
        ...

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        ...


class PlainChannel:
    """A socket without TLS."""

    __slots__ = ("_peer", "_sock")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        prepare(sock)
        self._sock = sock
        self._peer = peer

    def fileno(self) -> int:
        """Return the socket's number."""
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        """Return what has come; see `Channel`."""
        try:
            return self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            if is_news(error):
                _log.warning("A connection broke: %s.", error.strerror)
            return b""

    def expect(self, count: int) -> None:
        """Have the socket readable when so many bytes have come; see `Channel`."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def send(self, octets: bytes | memoryview) -> int | None:
        """Return how many bytes were taken; see `Channel`."""
        try:
            return self._sock.send(octets)
        except BlockingIOError:
            return 0
        except OSError:
            return None

    @property
    def is_full(self) -> bool:
        """Return that there is no room, for nothing else keeps this from sending; see `Channel`."""
        return True

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def peer(self) -> str:
        """Return the address of the other end; see `Channel`."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return no properties: there are no credentials."""
        return {}


def prepare(sock: socket.socket) -> None:
    """Make a socket one that never waits, and keeps little that is not sent."""
    sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_NOT_SENT_BYTES)


def is_news(error: OSError) -> bool:
    """Tell whether more happened to a connection than that its other end went away."""
    return error.errno not in _GONE


def peer_named(address: object) -> str:
    """Return an address as `socket.accept` gives it as gRPC writes it (gRPC's doc/naming.md)."""
    if not isinstance(address, tuple):
        # Of a Unix socket: clients do not name their end.
        return "unix:"
    host, port, *_ = address
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
