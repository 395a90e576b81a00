"""A connected socket with TLS on it.

    socket -> ciphertext -> incoming -> OpenSSL -> what was sent
    what to send -> OpenSSL -> outgoing -> ciphertext -> socket

OpenSSL never sees the socket, so nothing that it does waits: reading never has to write first, nor the
reverse, and one system call carries many records.
"""

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NotRequired, TypedDict, cast

from flyweight.server.security.certificates import reason_of
from flyweight.server.wire.channel import is_news, prepare
from flyweight.server.wire.handshakes import PROTOCOL, Refusals

_log = logging.getLogger(__name__)

# What is read of a socket before others have their turn, as without TLS.
_READ_BYTES: Final = 256 << 10
# What passes through OpenSSL at a time. Its buffers stay as large as they ever were, for each connection.
_STEP_BYTES: Final = 32 << 10
# RFC 8446, section 5.1: what a record may hold. OpenSSL gives one at a time, and this takes all of it.
_RECORD_BYTES: Final = 16 << 10
# Ciphertext that waits for the socket: a step of ours, and answers to what has no bytes in it (key updates),
# of which nobody needs many.
_MOST_WAITING_BYTES: Final = 128 << 10
# What Python and gRPC's core call the kinds of names in a certificate.
_PROPERTIES: Final = {"URI": "peer_uri", "DNS": "peer_dns", "email": "peer_email"}


class _Certificate(TypedDict):
    """The part of a certificate that is read here, as `ssl.SSLObject.getpeercert` has it."""

    subject: tuple[tuple[tuple[str, str], ...], ...]
    subjectAltName: NotRequired[tuple[tuple[str, str], ...]]


class TlsChannel:
    """A socket with TLS; see `Channel`. What `send` has encrypted it counts as taken once it is sent."""

    __slots__ = (
        "_ciphertext",
        "_half_sent_bytes",
        "_incoming",
        "_is_over",
        "_is_shaken",
        "_outgoing",
        "_peer",
        "_properties",
        "_refusals",
        "_sock",
        "_tls",
    )

    def __init__(self, sock: socket.socket, peer: str, context: ssl.SSLContext, refusals: Refusals) -> None:
        prepare(sock)
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._refusals = refusals
        self._is_shaken = self._is_over = False
        # What is encrypted and not sent yet, and how many of the next bytes to send it is of.
        self._ciphertext = b""
        self._half_sent_bytes = 0
        self._peer = peer
        self._properties: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}

    @property
    def is_full(self) -> bool:
        """Return whether the socket has no room; see `Channel`."""
        return bool(self._ciphertext)

    def fileno(self) -> int:
        """Return the socket's number."""
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        """Go on with the handshake, and return what has come; see `Channel`."""
        parts: list[bytes] = []
        try:
            for octets in self._arriving():
                self._incoming.write(octets)
                if self._is_shaken or self._shake_hands():
                    self._decrypt(parts)
        except ssl.SSLError as error:
            # Before it is closed: an alert, which tells the client why.
            self._is_over = True
            self._flush()
            if not self._is_shaken:
                self._refuse(_explained(error))
            return b""
        if self._outgoing.pending:
            # Of the handshake, or an answer to a key update. Without room it goes with what is sent next.
            self._flush()
        if len(self._ciphertext) > _MOST_WAITING_BYTES:
            self._is_over = True
        if parts:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        return b"" if self._is_over else None

    def expect(self, count: int) -> None:
        """Have the socket readable when so many bytes have come; see `Channel`.

        OpenSSL may hold as much of them as a record that is not whole yet.
        """
        count = max(1, count - _RECORD_BYTES)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def send(self, octets: bytes | memoryview) -> int | None:
        """Return how many bytes were taken; see `Channel`. None are while hands are still shaken."""
        if self._is_over and not self._is_shaken:
            return None
        taken, size = 0, len(octets)
        view = memoryview(octets)
        try:
            while self._flush():
                taken += self._half_sent_bytes
                self._half_sent_bytes = 0
                if taken == size or not self._is_shaken:
                    return taken
                step = view[taken : taken + _STEP_BYTES]
                self._half_sent_bytes = self._tls.write(step)
        except ssl.SSLError:
            return None
        return taken if self._ciphertext else None

    def close(self) -> None:
        """Say that no more comes (RFC 8446, section 6.1), if there is room for it, and close the socket."""
        if not self._ciphertext:
            # It raises an error, for nobody waits for the answer.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._sock.close()

    def peer(self) -> str:
        """Return the address of the other end; see `Channel`."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the names in the client's certificate, under gRPC's names for them; see `Channel`."""
        return self._properties

    def _arriving(self) -> Iterator[bytes]:
        """Yield what the socket has, up to so much; note when there is no more to come."""
        left = _READ_BYTES
        while left > 0 and not self._is_over:
            try:
                octets = self._sock.recv(_STEP_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if is_news(error):
                    _log.warning("A connection broke: %s.", error.strerror)
                octets = b""
            if octets:
                yield octets
            else:
                self._is_over = True
            if len(octets) < _STEP_BYTES:
                # Most likely all there is.
                return
            left -= len(octets)

    def _shake_hands(self) -> bool:
        """Go on with the handshake; tell whether it is done, and well."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self._tls.selected_alpn_protocol() != PROTOCOL:
            # Section 3.3 of RFC 9113. Python cannot have OpenSSL say so in the handshake.
            self._refuse("it does not ask for HTTP/2 (h2 by ALPN)")
            return False
        try:
            self._properties |= _names_of(self._tls)
        except UnicodeDecodeError:
            self._refuse("a name in its certificate is no text")
            return False
        self._is_shaken = True
        return True

    def _refuse(self, why: str) -> None:
        self._is_over = True
        self._refusals.tell(self.peer(), why)

    def _decrypt(self, parts: list[bytes]) -> None:
        """Take what OpenSSL makes of what has come."""
        while self._incoming.pending:
            try:
                part = self._tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                # The client says that no more comes.
                self._is_over = True
                return
            parts.append(part)

    def _flush(self) -> bool:
        """Send what is encrypted; tell whether all of it is sent. What nobody takes any more is dropped."""
        if self._outgoing.pending:
            self._ciphertext += self._outgoing.read()
        if not self._ciphertext:
            return True
        try:
            sent = self._sock.send(self._ciphertext)
        except BlockingIOError:
            return False
        except OSError:
            self._ciphertext = b""
            return False
        self._ciphertext = self._ciphertext[sent:]
        return not self._ciphertext


def _names_of(tls: ssl.SSLObject) -> dict[str, list[bytes]]:
    """Return the names in a verified certificate, as gRPC's core has them; none if none was asked for.

    Raises:
        UnicodeDecodeError: one is no UTF-8.
    """
    certificate = cast("_Certificate", tls.getpeercert())
    if not certificate:
        return {}
    found: dict[str, list[bytes]] = {}
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in _PROPERTIES:
            found.setdefault(_PROPERTIES[kind], []).append(name.encode())
    subject = (pair for part in certificate["subject"] for pair in part)
    # The first one; without one the core has an empty name.
    found["x509_common_name"] = [next((name for kind, name in subject if kind == "commonName"), "").encode()]
    return found


def _explained(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted ({error.verify_message})"
    return reason_of(error)
