"""The source: reads the repository again and again, and emits all of it that may be believed."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flyweight.protos.errors import RepositoryError
from flyweight.server.repository.scan import scan_repository
from flyweight.server.repository.settling import settle
from flyweight.server.repository.snapshot import Snapshot

_log = logging.getLogger(__name__)


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

    Args:
        root: the repository.
        quiet_seconds: how far apart two scans must be for the second to confirm the first.
        emit: takes every emission, on the thread that reads.
        monotonic: the clock.
    """

    def __init__(
        self,
        root: Path,
        quiet_seconds: float,
        emit: Callable[[Emission], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._quiet_seconds = quiet_seconds
        self._emit = emit
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._begun = 0
        self._believed: Snapshot | None = None
        self._earlier: Snapshot | None = None
        self._earlier_seconds = float("-inf")

    @property
    def next_number(self) -> int:
        """Return the number of the first scan that has not begun: it will see whatever is on disk by now."""
        with self._lock:
            return self._begun + 1

    def read(self) -> None:
        """Scan once and emit."""
        with self._lock:
            self._begun += 1
            number = self._begun
        now = self._monotonic()
        try:
            scanned = scan_repository(self._root)
        except RepositoryError as error:
            _log.warning("%s What was served before is still served.", error)
            self._emit(Emission(self._believed or Snapshot(), number, error=str(error)))
            return
        is_confirming = now - self._earlier_seconds >= self._quiet_seconds
        settled = settle(self._believed, self._earlier if is_confirming else None, scanned)
        if is_confirming:
            self._earlier, self._earlier_seconds = scanned, now
        self._believed = settled.snapshot
        self._emit(Emission(settled.snapshot, number, settled.changing))
