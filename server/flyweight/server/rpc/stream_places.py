"""Places for streams: each may hold a message that has not come whole, for as long as it is open.

What is on its way by calls of one message is bounded by time (`arriving`). A stream may rightly be silent for
hours, and gRPC's core does not tell silence from a message that comes slowly; so their number is bounded.
"""

from collections import Counter

from flyweight.server.errors import QueueFull


class StreamPlaces:
    """The open streams of each method. Belongs to the thread that takes events.

    Of each method for itself: who takes all places for inference keeps no probe from watching health.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, path: str) -> None:
        """Take a place for a stream of a method; `leave` gives it back.

        Raises:
            QueueFull: all are taken.
        """
        if self._open[path] >= self._most:
            raise QueueFull(
                f"The server has its {self._most} streams (--max-streams) of {path} open already; send the "
                "requests one by one, or through another replica."
            )
        self._open[path] += 1

    def leave(self, path: str) -> None:
        """Give back a place."""
        self._open[path] -= 1
