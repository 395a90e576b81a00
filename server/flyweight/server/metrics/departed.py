"""How long the counters of a variant outlive it.

A counter that vanished with its variant would take what came after the last scrape with it, and one that is
kept for ever is a leak where variants come and go by the hundred. Prometheus reads rates over minutes and
looks back 5 minutes for a series' last sample, so ten minutes are many scrapes; a variant that comes back
later begins at 0, which rate() and increase() take for a restart, as they should.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

Key = tuple[str, str]

_KEEP_SECONDS: Final = 600.0
# At some 160 series each, a scrape of the departed alone is then a few megabytes.
_MOST_KEPT: Final = 256


class Departed:
    """Remembers who is gone, and for how long. Thread-safe.

    Args:
        drop: is called with each (model, variant) that is to be forgotten, and without any lock held; a
            variant of "" stands for the model itself.
        monotonic: the clock.
    """

    def __init__(
        self, drop: Callable[[str, str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._drop = drop
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._present: frozenset[Key] = frozenset()
        # Who is gone, since when, longest first.
        self._gone: OrderedDict[Key, float] = OrderedDict()

    def show(self, present: Collection[Key]) -> None:
        """Note who is there now; those who were and are not have gone."""
        now = self._monotonic()
        with self._lock:
            for key in self._present.difference(present):
                self._gone[key] = now
            self._present = frozenset(present)
            for key in self._present & self._gone.keys():
                del self._gone[key]
        self.sweep()

    def mention(self, key: Key) -> None:
        """Note someone of whom there is something to tell; who is not there counts as gone from now on."""
        with self._lock:
            if key not in self._present:
                self._gone[key] = self._monotonic()
                self._gone.move_to_end(key)
        self.sweep()

    def sweep(self) -> None:
        """Drop those who have been gone for too long, and the longest gone of too many."""
        oldest = self._monotonic() - _KEEP_SECONDS
        with self._lock:
            expired = []
            while self._gone:
                key, since = next(iter(self._gone.items()))
                if since > oldest and len(self._gone) <= _MOST_KEPT:
                    break
                del self._gone[key]
                expired.append(key)
        for model, variant in expired:
            self._drop(model, variant)
