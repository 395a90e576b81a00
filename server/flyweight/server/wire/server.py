"""The port, and the one thread that reads connections, has calls answered, and writes.

It looks to the carrier as a server of gRPC's core does (`rpc.core.CoreServer`): `take` waits for what
happens, and handles it.
"""

import logging
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

import grpc

from flyweight.server.errors import StartError
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.channel import PlainChannel
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.frames import ErrorCode
from flyweight.server.wire.link import READABLE, Link

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
# How often deadlines are looked at.
_SWEEP_SECONDS: Final = 0.1
# Connections that are accepted between two looks at those that are there.
_ACCEPTED_AT_ONCE: Final = 64


class WireServer:
    """A gRPC server over sockets of its own.

    `add_insecure_port`, `start` it, then call `take` again and again from one thread until it says that the
    server is shut down.
    """

    def __init__(self, limits: Limits, most_message_bytes: int, on_call: Callable[[WireCall], None]) -> None:
        self.limits = limits
        self.most_message_bytes = most_message_bytes
        self.on_call = on_call
        self._listener: socket.socket | None = None
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Not before: whoever still has an answer to give may write to it.
        weakref.finalize(self, os.close, self._wake)
        self._poll.register(self._wake, select.EPOLLIN)
        self._links: dict[int, Link] = {}
        self._marked: list[Link] = []
        self._jobs: deque[tuple[Link, Callable[[], None]]] = deque()
        self._thread = 0
        self._is_asleep = False
        self._is_stopping = self._is_deaf = False
        self._sweep_at = 0.0

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS; return the port.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise RuntimeError(f"{address} cannot be listened on") from error
        listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._listener = listener
        return int(listener.getsockname()[1])

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:  # noqa: ARG002
        """Refuse to listen with TLS, which is not written yet.

        Raises:
            StartError: always.
        """
        raise StartError("The wire has no TLS yet; start with --transport grpcio, or without TLS.")

    def start(self) -> None:
        """Accept connections; calls come out of `take`."""
        assert self._listener is not None
        self._poll.register(self._listener.fileno(), select.EPOLLIN)

    # --- what links need of it ---

    def do(self, link: Link, job: Callable[[], None]) -> None:
        """Have a job done by the thread that takes events: at once, if that is who asks."""
        if threading.get_ident() == self._thread:
            job()
            self.mark(link)
            return
        self._jobs.append((link, job))
        if self._is_asleep:
            os.eventfd_write(self._wake, 1)

    def mark(self, link: Link) -> None:
        """Have what a link has to send sent before this waits again."""
        if not link.is_marked:
            link.is_marked = True
            self._marked.append(link)

    def watch(self, link: Link, events: int) -> None:
        """Have a link told of these events of its socket from now on."""
        self._poll.modify(link.number, events)

    def forget(self, link: Link) -> None:
        """Note that a link is closing its socket."""
        if self._links.pop(link.number, None) is not None:
            self._poll.unregister(link.number)

    # --- the loop ---

    def take(self, until_monotonic: float | None) -> bool | None:
        """Wait for something to happen, and handle it.

        Args:
            until_monotonic: how long to wait; None takes what is there already.

        Returns:
            True when something happened, False when nothing did, None when all is shut down.
        """
        self._thread = threading.get_ident()
        if self._marked:
            self._flush()
        if self._is_stopping and not self._links:
            self._poll.close()
            # It knows whoever made this server: such a circle would wait for the collector.
            self.on_call = _ignore
            return None
        events = self._poll.poll(self._patience(until_monotonic))
        self._is_asleep = False
        for number, event in events:
            self._handle(number, event)
        did = bool(events)
        while self._jobs:
            did = True
            link, job = self._jobs.popleft()
            self.do(link, job)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            self._sweep(now)
        if self._marked:
            self._flush()
        return did

    def _patience(self, until_monotonic: float | None) -> float:
        """Return for how many seconds to wait for events."""
        if until_monotonic is None or self._jobs:
            return 0.0
        # From here on whoever brings a job wakes this thread; one that came before is seen here.
        self._is_asleep = True
        return 0.0 if self._jobs else max(0.0, until_monotonic - time.monotonic())

    def shut_down(self) -> None:
        """Close the port and cut every call; `take` goes on until all is over."""
        self._is_stopping = True
        if self._listener is not None:
            if not self._is_deaf:
                self._poll.unregister(self._listener.fileno())
            self._listener.close()
        for link in [*self._links.values()]:
            link.connection.close(ErrorCode.NO_ERROR)
            link.write()
            link.drop()

    def _handle(self, number: int, event: int) -> None:
        link = self._links.get(number)
        if link is not None:
            link.handle(event)
        elif number == self._wake:
            os.eventfd_read(self._wake)
        elif self._listener is not None and number == self._listener.fileno():
            self._accept(self._listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # No file is left for it, most likely: it waits in the kernel, and is not asked for at once.
                _log.warning("A connection could not be accepted yet: %s.", error.strerror)
                self._poll.unregister(listener.fileno())
                self._is_deaf = True
                return
            link = self._links[sock.fileno()] = Link(self, PlainChannel(sock))
            self._poll.register(link.number, READABLE)
            link.write()

    def _flush(self) -> None:
        marked, self._marked = self._marked, []
        for link in marked:
            link.is_marked = False
            link.write()

    def _sweep(self, now: float) -> None:
        if self._is_deaf and self._listener is not None and not self._is_stopping:
            self._is_deaf = False
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        for link in [*self._links.values()]:
            link.expire(now)


def _ignore(_call: WireCall) -> None:
    """Answer nobody: the server is shut down."""
