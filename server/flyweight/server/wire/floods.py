"""What a connection may do that costs its caller nothing and us something."""

import time
from collections.abc import Callable
from math import inf
from typing import Final

from flyweight.server.wire.frames import ConnectionFault, ErrorCode

# gRFC A8: by these very words a client knows that it is to ping less often.
TOO_MANY_PINGS: Final = "too_many_pings"
_MOST_PING_STRIKES: Final = 2


class Allowance:
    """So many of a kind of frame at once, and so many a second after that. For one thread."""

    __slots__ = ("_burst", "_clock", "_left", "_per_second", "_seen_seconds", "_what")

    def __init__(
        self, what: str, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._burst = float(burst)
        self._left = self._burst
        self._per_second = per_second
        self._clock = clock
        self._seen_seconds = clock()

    def spend(self) -> None:
        """Take note of one.

        Raises:
            ConnectionFault: it is one too many.
        """
        self._left -= 1.0
        if self._left >= 0.0:
            return
        now = self._clock()
        earned = (now - self._seen_seconds) * self._per_second
        self._seen_seconds = now
        self._left = min(self._burst, self._left + earned)
        if self._left < 0.0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"There are too many {self._what}.")

    def earn(self, number: float = 1.0) -> None:
        """Allow for more, for what was done properly."""
        if self._left < self._burst:
            self._left += number


class PingPolicy:
    """How often a client may ping while nothing is sent to it (gRFC A8). For one thread.

    Args:
        least_seconds: between two pings; 0 is no limit.
        clock: in seconds.
    """

    __slots__ = ("_clock", "_last_seconds", "_least_seconds", "_strikes")

    def __init__(self, least_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_seconds = least_seconds
        self._clock = clock
        self.forgive()

    def forgive(self) -> None:
        """Forget the pings so far: since then something was sent, of which clients measure the bandwidth."""
        self._last_seconds = -inf
        self._strikes = 0

    def note(self) -> None:
        """Take note of a ping.

        Raises:
            ConnectionFault: it came too early, and so did too many before it.
        """
        now = self._clock()
        if now - self._last_seconds >= self._least_seconds:
            self._last_seconds = now
            return
        self._strikes += 1
        if self._strikes > _MOST_PING_STRIKES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, TOO_MANY_PINGS)
