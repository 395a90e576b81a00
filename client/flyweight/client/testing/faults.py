"""Failures that a test asks the fake server for."""

import threading
from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer that is a failure.

    Attributes:
        code: the status code's name, "UNAVAILABLE" for example.
        details: the sentence that goes with it.
        method: the RPC it is for; None for whichever comes first.
        pushback_ms: how long the client shall wait before it tries again; negative forbids it.
    """

    code: str
    details: str = "asked for by the test"
    method: str | None = None
    pushback_ms: int | None = None


@dataclass(slots=True)
class Faults:
    """The failures still to come, first in, first out. Safe for many threads."""

    _waiting: deque[Fault] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault, times: int) -> None:
        """Have the next `times` calls that `fault` is for fail."""
        with self._lock:
            self._waiting.extend([fault] * times)

    def take(self, method: str) -> Fault | None:
        """Return the failure that a call of `method` shall have, and forget it; None for success."""
        with self._lock:
            for fault in self._waiting:
                if fault.method in (None, method):
                    self._waiting.remove(fault)
                    return fault
        return None
