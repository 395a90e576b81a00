"""Messages on their way to the server: how many may be, and which give way.

Whoever opens a call and sends its message slowly, or never, makes the server keep what has come of it. So no
more of them are waited for than requests may be inside. A message that comes with its call, as all but large
ones do, never counts: it is there before it is of any age. What counts gives way when there are too many: the
oldest, once they had time enough, for they may never end; else the newest, so that the others get through.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, TypeVar

Sender = TypeVar("Sender")

# What is younger has most likely come whole and was not looked at yet. As much as the network brings in this
# time may be held beyond the bound: 125 MB at 10 Gbit/s.
_YOUNG_SECONDS: Final = 0.1
# The largest message, 64 MiB, at 50 Mbit/s; whoever is slower still gets through where nobody else is.
_LONG_SECONDS: Final = 10.0


class Arriving(Generic[Sender]):
    """The calls whose message is waited for. Belongs to the thread that takes events.

    Args:
        most: of them that are not young.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        # By the moment at which each began, the oldest first.
        self._since: dict[Sender, float] = {}

    def __len__(self) -> int:
        """Return how many there are, young ones too."""
        return len(self._since)

    def begin(self, sender: Sender) -> None:
        """Note that a message is waited for."""
        self._since[sender] = self._clock()

    def end(self, sender: Sender) -> bool:
        """Note that it came, or never will; tell whether it had not given way before."""
        return self._since.pop(sender, None) is not None

    def give_way(self) -> list[Sender]:
        """Take out those who are too many."""
        if len(self._since) <= self._most:
            return []
        now = self._clock()
        counted = [sender for sender, since in self._since.items() if since <= now - _YOUNG_SECONDS]
        surplus = len(counted) - self._most
        if surplus <= 0:
            return []
        long = list(islice((one for one in counted if self._since[one] <= now - _LONG_SECONDS), surplus))
        newest = counted[len(counted) - (surplus - len(long)) :]
        for sender in (*long, *newest):
            del self._since[sender]
        return [*long, *newest]
