"""The port, and the one thread that reads connections, has calls answered, and writes.

It looks to the carrier as a server of gRPC's core does (`rpc.core.CoreServer`): `take` waits for what
happens, and handles it.
"""

import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded
from flyweight.server.settings import ConnectionSettings
from flyweight.server.wire.call import WireCall
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.link import READABLE, Link
from flyweight.server.wire.listener import Listener

_log = logging.getLogger(__name__)

# How long a connection that sends much is let be until what is certain to come is there: whatever else comes
# on it waits no longer, which is little beside the 10 ms that a connection of 200 Mbit/s takes for as much.
_REST_SECONDS: Final = 0.002
# How often deadlines are looked at, and what lifetimes ask for.
_SWEEP_SECONDS: Final = 0.1
# Connections that are accepted between two looks at those that are there.
_ACCEPTED_AT_ONCE: Final = 64
# More than the kernel lets in before they are accepted.
_MOST_WAITING: Final = 4096
# How often the log tells of connections that were one too many.
_QUIET_SECONDS: Final = 10.0
_USUAL: Final = ConnectionSettings()


class WireServer:
    """A gRPC server over sockets of its own.

    Have it `listen`, `start` it, then call `take` again and again from one thread until it says that all is
    shut down.
    """

    def __init__(
        self,
        limits: Limits,
        most_message_bytes: int,
        on_call: Callable[[WireCall], None],
        terms: ConnectionSettings = _USUAL,
        *,
        packs: bool = False,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.limits = limits
        self.terms = terms
        self.most_message_bytes = most_message_bytes
        self.packs = packs
        self.is_busy = is_busy
        self.on_call = on_call
        self._listener: Listener | None = None
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Not before: whoever still has an answer to give may write to it.
        weakref.finalize(self, os.close, self._wake)
        self._poll.register(self._wake, select.EPOLLIN)
        self._links: dict[int, Link] = {}
        self._marked: list[Link] = []
        # Links that wait for much to come, with the moments until which they do, the first one first.
        self._resting: deque[tuple[float, Link]] = deque()
        self._jobs: deque[tuple[Link, Callable[[], None]]] = deque()
        self.thread = 0
        self._is_asleep = False
        self._is_stopping = self._is_deaf = False
        self._sweep_at = 0.0
        # When what is handled now was found.
        self.now = time.monotonic()
        self._is_leaving = False
        self._everybody_heard = threading.Event()
        # Until when connections may take what is left for them, once this is shut down.
        self._ends_at = -inf
        # Connections that were one too many, and when the log may be told of them.
        self._surplus = 0
        self._tell_at = -inf

    def listen(self, address: str, pems: Reloaded[Pems] | None = None) -> int:
        """Listen, with TLS if there are PEM files for it; return the port.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        try:
            self._listener = Listener(address, pems)
        except OSError as error:
            raise RuntimeError(f"{address} cannot be listened on") from error
        return self._listener.port

    def start(self) -> None:
        """Accept connections; calls come out of `take`."""
        assert self._listener is not None
        self._poll.register(self._listener.fileno(), select.EPOLLIN)

    # --- what links need of it ---

    def bring(self, link: Link, job: Callable[[], None]) -> None:
        """Bring the thread that takes events a job of a link."""
        self._jobs.append((link, job))
        if self._is_asleep:
            os.eventfd_write(self._wake, 1)

    def mark(self, link: Link) -> None:
        """Have what a link has to send sent before this waits again."""
        self._marked.append(link)

    def rest(self, link: Link) -> float:
        """Have a link go on in a moment, if it does not by itself before; return when."""
        moment = self.now + _REST_SECONDS
        self._resting.append((moment, link))
        return moment

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
        self.thread = threading.get_ident()
        if self._marked:
            self._flush()
        if self._is_stopping and not self._links:
            self._poll.close()
            # It knows whoever made this server: such a circle would wait for the collector.
            self.on_call = _ignore
            self._resting.clear()
            return None
        events = self._poll.poll(self._patience(until_monotonic))
        self._is_asleep = False
        self.now = now = time.monotonic()
        for number, event in events:
            self._handle(number, event)
        did = bool(events)
        while self._resting and now >= self._resting[0][0]:
            did = True
            moment, link = self._resting.popleft()
            link.go_on(moment)
        while self._jobs:
            did = True
            link, job = self._jobs.popleft()
            link.do(job)
        if self._is_leaving and not self._everybody_heard.is_set():
            self._leave(now)
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
        if self._resting:
            until_monotonic = min(until_monotonic, self._resting[0][0])
        return 0.0 if self._jobs else max(0.0, until_monotonic - time.monotonic())

    def drain(self, until_monotonic: float) -> None:
        """Close the port, ask all clients to go elsewhere with their next calls, and wait until they heard.

        For any thread but that which takes events. Until then also `shut_down` may wait for clients to take
        what is left for them.
        """
        self._ends_at = until_monotonic
        self._is_leaving = True
        os.eventfd_write(self._wake, 1)
        self._everybody_heard.wait(max(0.0, until_monotonic - time.monotonic()))

    def shut_down(self) -> None:
        """Close the port and cut every call; `take` goes on until all is over."""
        self._is_stopping = True
        self._close_port()
        now = time.monotonic()
        for link in [*self._links.values()]:
            link.end(now, self._ends_at)

    def _leave(self, now: float) -> None:
        if self._listener is not None:
            # Whoever the kernel has let in would be thrown out with the port.
            for _ in range(_MOST_WAITING // _ACCEPTED_AT_ONCE):
                if self._is_deaf:
                    break
                self._accept(self._listener)
            self._close_port()
            for link in [*self._links.values()]:
                link.drain(now)
        connections = (link.connection for link in self._links.values())
        if all(connection.is_draining or connection.is_closing for connection in connections):
            self._everybody_heard.set()

    def _close_port(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            if not self._is_deaf:
                self._poll.unregister(listener.fileno())
            listener.close()

    def _handle(self, number: int, event: int) -> None:
        link = self._links.get(number)
        if link is not None:
            link.handle(event)
        elif number == self._wake:
            os.eventfd_read(self._wake)
        elif self._listener is not None and number == self._listener.fileno():
            self._accept(self._listener)

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                channel = listener.accept()
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
            if len(self._links) >= (self.terms.max_connections or inf):
                channel.close()
                self._note_surplus()
                continue
            link = self._links[channel.fileno()] = Link(self, channel)
            self._poll.register(link.number, READABLE)
            link.write()

    def _note_surplus(self) -> None:
        self._surplus += 1
        if self.now >= self._tell_at:
            _log.warning(
                "%d connections are open, as many as may be (--max-connections); %d more were closed.",
                len(self._links),
                self._surplus,
            )
            self._surplus, self._tell_at = 0, self.now + _QUIET_SECONDS

    def _flush(self) -> None:
        marked, self._marked = self._marked, []
        for link in marked:
            link.flush()

    def _sweep(self, now: float) -> None:
        if self._is_deaf and self._listener is not None and not self._is_stopping:
            self._is_deaf = False
            self._poll.register(self._listener.fileno(), select.EPOLLIN)
        for link in [*self._links.values()]:
            # Looked at from here: there are thousands, and most have nothing to do.
            if link.connection.streams or now >= link.lifetime.due:
                link.sweep(now)


def _ignore(_call: WireCall) -> None:
    """Answer nobody: the server is shut down."""
