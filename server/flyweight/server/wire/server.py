"""The port: sockets, and the one thread that reads them, has calls answered, and writes.

It looks to the carrier as a server of gRPC's core does (`rpc.core.CoreServer`): `take` waits for what
happens, and handles it.
"""

import errno
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
from flyweight.server.survival import survive
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.connection import Connection, Limits, Stream
from flyweight.server.wire.frames import ErrorCode
from flyweight.server.wire.heads import head_of
from flyweight.server.wire.hpack import Block

_log = logging.getLogger(__name__)

# What is read of a socket at a time: some hundred small requests, and a tenth of a large one.
_READ_BYTES: Final = 256 << 10
_BACKLOG: Final = 1024
# How often deadlines are looked at.
_SWEEP_SECONDS: Final = 0.1
# Connections that are accepted between two looks at those that are there.
_ACCEPTED_AT_ONCE: Final = 64
# tcp(7); the standard library knows it by no name before Python 3.12.
_TCP_NOTSENT_LOWAT: Final = 25
# What the kernel keeps of what a client does not read yet, beyond what is under way: as much as we do.
_MOST_NOT_SENT_BYTES: Final = 256 << 10
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
_GONE: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNABORTED})


class _Socket:
    """One connection's socket, and what is to be written to it."""

    __slots__ = (
        "_peer",
        "_server",
        "connection",
        "is_blocked",
        "is_dirty",
        "most_message_bytes",
        "sock",
        "unsent",
    )

    def __init__(self, server: "WireServer", sock: socket.socket) -> None:
        self._server = server
        self.sock = sock
        self._peer = ""
        self.most_message_bytes = server.most_message_bytes
        self.connection = Connection(server.limits, self._accept)
        self.unsent = b""
        self.is_blocked = False
        self.is_dirty = False

    def do(self, job: Callable[[], None]) -> None:
        self._server.do(self, job)

    def peer(self) -> str:
        if not self._peer:
            try:
                host, port, *_ = self.sock.getpeername()
            except (OSError, ValueError):
                return "unknown"
            self._peer = f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
        return self._peer

    def _accept(self, stream: Stream, block: Block) -> None:
        head = head_of(block, self._server.limits.max_header_bytes)
        call = stream.listener = WireCall(self, self.connection, stream, head)
        if head.status != 200:
            call.refuse_as_http(head.status)
        elif head.refusal is not None:
            call.end(head.refusal)
        else:
            self._server.on_call(call)


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
        self._sockets: dict[int, _Socket] = {}
        self._dirty: list[_Socket] = []
        self._jobs: deque[tuple[_Socket, Callable[[], None]]] = deque()
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

    def do(self, home: _Socket, job: Callable[[], None]) -> None:
        """Have a job done by the thread that takes events: at once, if that is who asks."""
        if threading.get_ident() == self._thread:
            job()
            if not home.is_dirty:
                home.is_dirty = True
                self._dirty.append(home)
            return
        self._jobs.append((home, job))
        if self._is_asleep:
            os.eventfd_write(self._wake, 1)

    def take(self, until_monotonic: float | None) -> bool | None:
        """Wait for something to happen, and handle it.

        Args:
            until_monotonic: how long to wait; None takes what is there already.

        Returns:
            True when something happened, False when nothing did, None when all is shut down.
        """
        self._thread = threading.get_ident()
        if self._dirty:
            self._flush()
        if self._is_stopping and not self._sockets:
            self._poll.close()
            # It knows whoever made this server: such a circle would wait for the collector.
            self.on_call = _ignore
            return None
        timeout = 0.0
        if until_monotonic is not None and not self._jobs:
            # From here on whoever brings a job wakes this thread; one that came before is seen here.
            self._is_asleep = True
            if not self._jobs:
                timeout = max(0.0, until_monotonic - time.monotonic())
        events = self._poll.poll(timeout)
        self._is_asleep = False
        for number, event in events:
            self._handle(number, event)
        did = bool(events)
        while self._jobs:
            did = True
            home, job = self._jobs.popleft()
            self.do(home, job)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            self._sweep(now)
        if self._dirty:
            self._flush()
        return did

    def shut_down(self) -> None:
        """Close the port and cut every call; `take` goes on until all is over."""
        self._is_stopping = True
        if self._listener is not None:
            if not self._is_deaf:
                self._poll.unregister(self._listener.fileno())
            self._listener.close()
        for one in [*self._sockets.values()]:
            one.connection.close(ErrorCode.NO_ERROR)
            self._write(one)
            self._drop(one)

    def _handle(self, number: int, event: int) -> None:
        one = self._sockets.get(number)
        if one is not None:
            if event & select.EPOLLOUT:
                self._write(one)
            if event & ~select.EPOLLOUT:
                self._read(one)
        elif number == self._wake:
            os.eventfd_read(self._wake)
        elif self._listener is not None and number == self._listener.fileno():
            self._accept()

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # No file is left for it, most likely: it waits in the kernel, and is not asked for at once.
                _log.warning("A connection could not be accepted yet: %s.", error.strerror)
                self._poll.unregister(self._listener.fileno())
                self._is_deaf = True
                return
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _MOST_NOT_SENT_BYTES)
            one = self._sockets[sock.fileno()] = _Socket(self, sock)
            self._poll.register(sock.fileno(), _READABLE)
            self._write(one)

    def _read(self, one: _Socket) -> None:
        try:
            octets = one.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _GONE:
                _log.warning("A connection broke: %s.", error.strerror)
            octets = b""
        if not octets:
            self._drop(one)
            return
        connection = one.connection
        survive("reading a connection", lambda: connection.receive(octets), lambda _: connection.abandon())
        if not one.is_dirty and (connection.has_output or connection.is_closing):
            one.is_dirty = True
            self._dirty.append(one)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for one in dirty:
            one.is_dirty = False
            self._write(one)

    def _write(self, one: _Socket) -> None:
        connection = one.connection
        while True:
            if not one.unsent:
                if not connection.has_output:
                    break
                one.unsent = connection.take_output()
            try:
                sent = one.sock.send(one.unsent)
            except BlockingIOError:
                self._block(one, is_blocked=True)
                return
            except OSError:
                self._drop(one)
                return
            one.unsent = one.unsent[sent:]
            connection.note_sent(sent)
        if one.is_blocked:
            self._block(one, is_blocked=False)
        if connection.is_closing:
            self._drop(one)

    def _block(self, one: _Socket, *, is_blocked: bool) -> None:
        one.is_blocked = is_blocked
        self._poll.modify(one.sock.fileno(), _READABLE | (select.EPOLLOUT if is_blocked else 0))

    def _drop(self, one: _Socket) -> None:
        if self._sockets.pop(one.sock.fileno(), None) is None:
            return
        self._poll.unregister(one.sock.fileno())
        one.sock.close()
        one.connection.abandon()

    def _sweep(self, now: float) -> None:
        if self._is_deaf and self._listener is not None and not self._is_stopping:
            self._is_deaf = False
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        for one in [*self._sockets.values()]:
            for stream in [*one.connection.streams.values()]:
                if isinstance(stream.listener, WireCall):
                    stream.listener.expire(now)
            if one.connection.has_output and not one.is_dirty:
                one.is_dirty = True
                self._dirty.append(one)


def _ignore(_call: WireCall) -> None:
    """Answer nobody: the server is shut down."""
