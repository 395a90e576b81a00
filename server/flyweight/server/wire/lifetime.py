"""How long a connection may live, and what is to be done with it when.

gRFC A8 and A9 describe keepalive, idleness and age; RFC 9113, section 6.8, how a connection is ended without
losing a call. Nothing here has a socket or a clock: it is asked what is next at a moment, and told what is
known of the connection by then.
"""

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final

from flyweight.server.settings import ConnectionSettings

# How long a client may take to hear that it is to open no more streams: a few of the longest round trips.
# After that they are refused, which loses nothing either.
_HEARD_SECONDS: Final = 2.0
# How long a client may take to read what is left for it, and to close a connection that it was told is over.
# It does so first: what it still sends would otherwise have the kernel throw away what it has not read.
_CLOSING_SECONDS: Final = 2.0
# How much later than that an idle connection may be found to be so, in parts of what it may be idle: a stream
# that begins or ends tells nobody, so that this costs requests nothing.
_IDLE_SLACK: Final = 0.1
# In the place of the last stream's number while streams are open: their end is a change then, too.
_OPEN: Final = -1


class Step(Enum):
    """What is to be done with a connection now."""

    WAIT = "nothing"
    PING = "ask whether the client is there"
    DRAIN = "ask the client to open no more streams"
    TURN_AWAY = "refuse more streams"
    CUT = "end the streams that are open, and close when the rest is sent"
    DROP = "close the socket as it is"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a connection.

    Attributes:
        heard_at: when the last bytes came; at first when it was accepted.
        is_greeted: whether the client began to speak HTTP/2.
        open_streams: how many.
        last_stream: the number of the last one.
        turns_away: whether more streams are refused.
        has_unsent: whether anything waits for the socket.
    """

    heard_at: float
    is_greeted: bool = True
    open_streams: int = 0
    last_stream: int = 0
    turns_away: bool = False
    has_unsent: bool = False


class Lifetime:
    """Says what is next for one connection; `look` when it is `due`. For one thread.

    Args:
        terms: how long everything may take.
        now: when it was accepted.
        spread: by which its age is multiplied, so that many that came together do not leave together.
    """

    __slots__ = (
        "_ages_at",
        "_asked_at",
        "_busy_at",
        "_drops_at",
        "_ends_at",
        "_greets_by",
        "_is_draining",
        "_last_stream",
        "_terms",
        "_turns_away_at",
        "due",
    )

    def __init__(self, terms: ConnectionSettings, now: float, spread: float = 1.0) -> None:
        self._terms = terms
        self._greets_by = now + (terms.handshake_seconds or inf)
        self._ages_at = now + (terms.max_connection_age_seconds * spread or inf)
        # When a stream was last seen to be open, or to have been open since the look before that.
        self._busy_at = now
        self._last_stream = 0
        self._asked_at: float | None = None
        self._is_draining = False
        self._turns_away_at = self._ends_at = self._drops_at = inf
        # Before this moment there is nothing to do: many connections cost a comparison each.
        self.due = now
        self._plan(now, Seen(now, is_greeted=False))

    def look(self, now: float, seen: Seen) -> Step:
        """Return what is to be done at a moment; it counts as done. Sets `due`."""
        if self._drops_at < inf:
            return Step.DROP if now >= self._drops_at else Step.WAIT
        if not seen.is_greeted and now >= self._greets_by:
            return Step.DROP
        step = self._keep_alive(now, seen)
        if step is Step.WAIT:
            step = self._end(now, seen) if self._is_draining else self._begin_to_end(now, seen)
        if self._drops_at == inf:
            self._plan(now, seen)
        return step

    def drain(self, now: float) -> None:
        """Note that the client was asked to open no more streams."""
        if not self._is_draining:
            self._is_draining = True
            self._turns_away_at = now + _HEARD_SECONDS
            self.due = now

    def close(self, now: float, by: float = inf) -> None:
        """Note that nothing happens any more but that what is left is sent; `by` is when it must be."""
        self._drops_at = self.due = min(self._drops_at, now + _CLOSING_SECONDS, by)

    def _keep_alive(self, now: float, seen: Seen) -> Step:
        """Find out whether the client is there, when it was silent for long (gRFC A8)."""
        terms = self._terms
        if not terms.keepalive_seconds or not seen.is_greeted:
            return Step.WAIT
        if self._asked_at is not None and seen.heard_at < self._asked_at:
            # Whatever comes is as good as an answer; 0 is to wait for ever.
            is_over = now >= self._asked_at + (terms.keepalive_timeout_seconds or inf)
            return Step.DROP if is_over else Step.WAIT
        self._asked_at = None
        if now < seen.heard_at + terms.keepalive_seconds:
            return Step.WAIT
        self._asked_at = now
        return Step.PING

    def _begin_to_end(self, now: float, seen: Seen) -> Step:
        """Have the connection drained for its age or for having nothing to do (gRFC A9)."""
        last_stream = _OPEN if seen.open_streams else seen.last_stream
        if last_stream == _OPEN or last_stream != self._last_stream:
            self._busy_at = now
            self._last_stream = last_stream
        if now >= self._ages_at:
            self._ends_at = now + (self._terms.max_connection_age_grace_seconds or inf)
        elif now < self._busy_at + (self._terms.max_connection_idle_seconds or inf):
            return Step.WAIT
        self.drain(now)
        return Step.DRAIN

    def _end(self, now: float, seen: Seen) -> Step:
        """Leave it to the client to close once all streams are over; cut them when their time is."""
        if now >= self._ends_at:
            self.close(now)
            return Step.CUT
        if seen.turns_away and not seen.open_streams and not seen.has_unsent:
            self.close(now)
            return Step.WAIT
        return Step.TURN_AWAY if not seen.turns_away and now >= self._turns_away_at else Step.WAIT

    def _plan(self, now: float, seen: Seen) -> None:
        """Set the moment at which to look again."""
        if self._is_draining:
            # Nobody tells when the last stream is over.
            self.due = now
            return
        terms = self._terms
        due = self._ages_at
        if not seen.is_greeted:
            due = min(due, self._greets_by)
        if terms.keepalive_seconds:
            # Silence counts from the greeting on, and whether a ping was answered is looked at as often.
            since = seen.heard_at if seen.is_greeted and self._asked_at is None else now
            due = min(due, since + terms.keepalive_seconds)
            if self._asked_at is not None:
                due = min(due, self._asked_at + (terms.keepalive_timeout_seconds or inf))
        idle_seconds = terms.max_connection_idle_seconds
        if idle_seconds:
            due = min(due, self._busy_at + idle_seconds, now + _IDLE_SLACK * idle_seconds)
        self.due = due
