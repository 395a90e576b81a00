"""The ledger: what became of every request, and whether that was allowed."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seen:
    """What became of one request: its status, who answered and why, and what was wrong with the answer."""

    code: str
    variant: str = ""
    reason: str = ""
    fault: str = ""
    details: str = ""
    seconds: float = 0.0


@dataclass
class Ledger:
    """The account of one group of callers. Thread-safe.

    `required` are the statuses that must be seen, `allowed` those that may be seen besides.
    """

    name: str
    required: frozenset[str]
    allowed: frozenset[str]
    sent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    variants: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def send(self, count: int = 1) -> None:
        """Note that requests are about to be sent."""
        with self.changed:
            self.sent += count

    def note(self, seen: Seen) -> None:
        """Note what became of one."""
        with self.changed:
            self.codes[seen.code] += 1
            self.details.setdefault(seen.code, seen.details)
            if seen.variant:
                self.variants[seen.variant, seen.reason] += 1
            if seen.fault:
                self.faults.append(seen.fault)
            if seen.code == "OK":
                self.seconds.append(seen.seconds)
            self.changed.notify_all()

    @property
    def is_complete(self) -> bool:
        """Whether every required status was seen."""
        return self.required <= set(self.codes)

    @property
    def answered(self) -> int:
        return self.codes.total()

    def await_that(self, is_there: Callable[["Ledger"], bool], timeout_seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: is_there(self), timeout_seconds)

    def await_more(self, count: int, timeout_seconds: float = 60.0) -> bool:
        """Wait for so many more answers than there are now."""
        with self.changed:
            goal = self.answered + count
            return self.changed.wait_for(lambda: self.answered >= goal, timeout_seconds)

    def complaints(self) -> list[str]:
        """Return what is wrong with the account; nothing when all is well."""
        unexpected = set(self.codes) - self.required - self.allowed
        missing = self.required - set(self.codes)
        found: list[str] = []
        if unexpected:
            said = [self.details[code] for code in unexpected]
            found.append(f"{self.name} saw what is not allowed, {said}, among {dict(self.codes)}")
        if missing:
            found.append(f"{self.name} never saw {sorted(missing)}: {dict(self.codes)}")
        if self.sent != self.answered:
            found.append(f"{self.name} sent {self.sent} requests and heard of {self.answered}")
        if self.faults:
            found.append(f"{self.name} got {len(self.faults)} wrong answers, first: {self.faults[0]}")
        return found
