"""What a connection may do that costs its caller nothing and us something."""

import time
from collections.abc import Callable

from flyweight.server.wire.frames import ConnectionFault, ErrorCode


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

    def earn(self) -> None:
        """Allow for one more, for what was done properly."""
        if self._left < self._burst:
            self._left += 1.0
