"""The source: reads the repository again and again, and emits all of it that may be believed."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.server.repository.scan import scan_repository
from flyweight.server.repository.settling import settle
from flyweight.server.repository.snapshot import Snapshot

_log = logging.getLogger(__name__)

# What nobody touched for so long before the server starts is not being copied: a copy changes a file or a
# folder with every piece it writes. Clocks of file servers differ from ours by less, where they are kept.
_OLD_NANOSECONDS: Final = 10_000_000_000

# Different looks of a repository that are remembered within the time that confirms one: a bound for one that
# changes with every scan, whose last looks are then confirmed a little later.
_MOST_LOOKS: Final = 64


@dataclass(frozen=True, slots=True)
class Emission:
    """What the source believes after scan number `number`, counted from 1.

    `changing` are the models in which something must be seen again before it is believed. `error` is why
    the repository could not be read at all; the snapshot is then the last one.
    """

    snapshot: Snapshot
    number: int
    changing: frozenset[str] = frozenset()
    error: str = ""


class Source:
    """Reads one repository. `read` has one caller at a time: the source's thread, or a test.

    `scanned` is what the last scan saw, believed or not.

    Args:
        root: the repository.
        quiet_seconds: how far apart two scans must be for the second to confirm the first.
        emit: takes every emission, on the thread that reads.
        monotonic: the clock.
        wall_ns: the clock of files, in nanoseconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        quiet_seconds: float,
        emit: Callable[[Emission], None],
        monotonic: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = root
        self._quiet_seconds = quiet_seconds
        self._emit = emit
        self._monotonic = monotonic
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._begun = 0
        self._believed: Snapshot | None = None
        # When the repository began to look as it did, for every look of it that may still confirm a scan.
        self._looks: list[tuple[float, Snapshot]] = []
        self._last_seconds = float("-inf")
        self._is_changing = False
        self.scanned = Snapshot()

    @property
    def next_number(self) -> int:
        """Return the number of the first scan that has not begun: it will see whatever is on disk by now."""
        with self._lock:
            return self._begun + 1

    def seconds_to_confirm(self) -> float | None:
        """Return when a scan can next confirm what is changing, in seconds; None when nothing is."""
        if not self._is_changing:
            return None
        # What was old enough at the last scan has confirmed what it could; the others are yet to.
        moments = [since + self._quiet_seconds for since, _ in self._looks]
        coming = [moment for moment in moments if moment > self._last_seconds]
        return max(0.0, min(coming) - self._monotonic()) if coming else None

    def read(self) -> None:
        """Scan once and emit."""
        with self._lock:
            self._begun += 1
            number = self._begun
        now = self._monotonic()
        # Before it is looked: what changes meanwhile is new.
        old_ns = self._wall_ns() - _OLD_NANOSECONDS
        try:
            scanned = scan_repository(self._root)
        except RepositoryError as error:
            _log.warning("%s What was served before is still served.", error)
            self._emit(Emission(self._believed or Snapshot(), number, error=str(error)))
            return
        settled = settle(self._believed, self._earlier(now), scanned, old_ns)
        if len(self._looks) < _MOST_LOOKS and (not self._looks or self._looks[-1][1] != scanned):
            self._looks.append((now, scanned))
        self._believed, self.scanned = settled.snapshot, scanned
        self._is_changing, self._last_seconds = bool(settled.changing), now
        self._emit(Emission(settled.snapshot, number, settled.changing))

    def _earlier(self, now: float) -> Snapshot | None:
        """Return how it last looked so long ago that it confirms a scan; forget how it looked before."""
        aged = [index for index, (since, _) in enumerate(self._looks) if since + self._quiet_seconds <= now]
        if not aged:
            return None
        del self._looks[: aged[-1]]
        return self._looks[0][1]
