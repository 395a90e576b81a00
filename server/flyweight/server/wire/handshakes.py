"""What TLS handshakes are made with, from files that change (RFC 9113, section 9.2), and whom they refuse."""

import logging
import ssl
import time
from collections.abc import Callable
from typing import Final

from flyweight.server.security.certificates import Pems, reason_of, server_context
from flyweight.server.security.reloaded import Reloaded

_log = logging.getLogger(__name__)

# What HTTP/2 over TLS is called in a handshake (section 3.2).
PROTOCOL: Final = "h2"
# Section 9.2.2: what is left of TLS 1.2 without the suites that are prohibited there.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Anybody can be turned away as often as he likes; the log tells of it so often.
_QUIET_SECONDS: Final = 10.0


class Refusals:
    """Logs why clients are turned away: one now and then, and how many there were. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until: float | None = None
        self._untold = 0

    def tell(self, peer: str, why: str) -> None:
        """Note that a client was turned away."""
        now = self._clock()
        if self._quiet_until is not None and now < self._quiet_until:
            self._untold += 1
            return
        others = f" So were {self._untold} others since this was last told." if self._untold else ""
        _log.info("%s was turned away in its TLS handshake: %s.%s", peer, why, others)
        self._quiet_until, self._untold = now + _QUIET_SECONDS, 0


class Handshakes:
    """Gives each connection what the files hold by then. For one thread."""

    def __init__(self, pems: Reloaded[Pems]) -> None:
        self._pems = pems
        self._known = pems.content
        self._context = _context_of(self._known)
        self.refusals = Refusals()

    def context(self) -> ssl.SSLContext:
        """Return what the next handshake is made with."""
        self._pems.refresh()
        if self._pems.content is not self._known:
            self._renew(self._pems.content)
        return self._context

    def _renew(self, pems: Pems) -> None:
        try:
            self._context = _context_of(pems)
        except OSError as error:
            # The next connection tries again.
            _log.warning("The new certificate cannot be used yet: %s.", reason_of(error))
            return
        self._known = pems


def _context_of(pems: Pems) -> ssl.SSLContext:
    """Return what handshakes are made with: the files, and what section 9.2 asks for."""
    context = server_context(pems)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([PROTOCOL])
    # A connection lives for hours: nobody gains by resuming one, and a ticket is sent to each.
    context.num_tickets = 0
    return context
