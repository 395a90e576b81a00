"""How both ends learn whether the other is there, and that it is to go (RFC 9113, sections 6.7 and 6.8)."""

from typing import Final

from flyweight.server.wire.floods import PingPolicy
from flyweight.server.wire.frames import MOST_STREAM, ErrorCode, Flag, Kind, frame, goaway
from flyweight.server.wire.outgoing import Outgoing

# What our pings hold (section 6.7: what their sender likes).
_ARE_YOU_THERE: Final = b"present?"
_LEAVE: Final = b"leaving?"


class Leaving:
    """Pings both ways, and the end of a connection in two steps.

    First the client is asked to open no more streams, with a ping behind that; when it acknowledges the ping,
    it has heard, and what it opened before has come: then it is told which stream is the last.

    Attributes:
        is_told: whether the client was told which stream is the last.
    """

    def __init__(self, out: Outgoing, min_ping_seconds: float) -> None:
        self._out = out
        self._pings = PingPolicy(min_ping_seconds)
        # Pings of ours that are not acknowledged yet.
        self._asked = 0
        self._last_told = MOST_STREAM
        self._is_begun = self.is_told = False

    def take_ping(self, payload: bytes) -> None:
        """Answer a ping of the client.

        Raises:
            ConnectionFault: there are too many.
        """
        if self._out.has_sent:
            # Of what was sent since, clients measure the bandwidth.
            self._out.has_sent = False
            self._pings.forgive()
        self._pings.note()
        self._out.write(frame(Kind.PING, Flag.ACK, 0, payload))

    def take_answer(self, payload: bytes, last_stream: int) -> bool:
        """Take what acknowledges a ping of ours; tell whether there was one."""
        if not self._asked:
            return False
        self._asked -= 1
        if payload == _LEAVE:
            self.tell(last_stream)
        return True

    def ask(self) -> None:
        """Ask whether the client is there."""
        self._ping(_ARE_YOU_THERE)

    def begin(self) -> None:
        """Ask the client to open no more streams; those that are on their way are taken."""
        if not self._is_begun:
            self._is_begun = True
            self._out.write(goaway(MOST_STREAM, ErrorCode.NO_ERROR))
            self._ping(_LEAVE)

    def tell(self, last_stream: int) -> None:
        """Say which stream is the last."""
        if not self.is_told:
            self.is_told = self._is_begun = True
            self._last_told = last_stream
            self._out.write(goaway(last_stream, ErrorCode.NO_ERROR))

    def end(self, last_stream: int, code: ErrorCode, sentence: str) -> None:
        """Say that the connection ends, and why."""
        if code is not ErrorCode.NO_ERROR or not self.is_told:
            # Section 6.8: the number does not grow, though streams were refused meanwhile.
            self._out.write(goaway(min(last_stream, self._last_told), code, sentence))

    def _ping(self, payload: bytes) -> None:
        self._asked += 1
        self._out.write(frame(Kind.PING, Flag.NONE, 0, payload))
