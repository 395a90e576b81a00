"""A request's turn in its sequence: it may run once it has its ticket and its turn has come."""

import threading
from collections.abc import Callable

from flyweight.server.sequences import SequenceStep, Ticket


class Turn:
    """Waits for a ticket and for its step, which may come from two threads; then calls `go` once."""

    def __init__(self, go: Callable[[SequenceStep], None]) -> None:
        self._go = go
        self._lock = threading.Lock()
        self._step: SequenceStep | None = None
        self.ticket: Ticket | None = None

    def hold(self, ticket: Ticket) -> None:
        """Take the ticket."""
        with self._lock:
            self.ticket, step = ticket, self._step
        if step is not None:
            self._go(step)

    def come(self, step: SequenceStep) -> None:
        """Note that the turn has come."""
        with self._lock:
            self._step, ticket = step, self.ticket
        if ticket is not None:
            self._go(step)
