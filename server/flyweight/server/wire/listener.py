"""The socket that clients connect to, and how what comes to it becomes channels."""

import os
import socket
from pathlib import Path
from typing import Final

from flyweight.server.addresses import is_unix, unix_path
from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.wire.channel import Channel, PlainChannel, peer_named
from flyweight.server.wire.handshakes import Handshakes
from flyweight.server.wire.tls import TlsChannel

# Who connects between two looks at the port; the kernel has a bound of its own (net.core.somaxconn).
_BACKLOG: Final = 1024


class Listener:
    """A socket that is listened on, with TLS if there are PEM files for it. Owns a Unix socket's file.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, address: str, pems: Reloaded[Pems] | None) -> None:
        self._handshakes = None if pems is None else Handshakes(pems)
        self._path = unix_path(address) if is_unix(address) else None
        self._sock = _unix_socket(self._path) if self._path is not None else _tcp_socket(address)
        self._sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._file = _identity(self._path)

    @property
    def port(self) -> int:
        """The port; a Unix socket has none."""
        return 0 if self._path is not None else int(self._sock.getsockname()[1])

    def fileno(self) -> int:
        """Return the socket's number."""
        return self._sock.fileno()

    def accept(self) -> Channel:
        """Return the channel of a client that has connected.

        Raises:
            BlockingIOError: none has.
            OSError: it is gone again (a ConnectionError), or there is no room for it.
        """
        sock, address = self._sock.accept()
        # Now: of a connection that is over the kernel knows no more.
        peer = peer_named(address)
        if self._handshakes is None:
            return PlainChannel(sock, peer)
        return TlsChannel(sock, peer, self._handshakes.context(), self._handshakes.refusals)

    def close(self) -> None:
        """Listen no more, and remove the file, unless it is another server's by now."""
        self._sock.close()
        if self._path is not None and self._file is not None and _identity(self._path) == self._file:
            self._path.unlink(missing_ok=True)


def _tcp_socket(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells one file from another of the same name."""
    try:
        status = path.lstat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
