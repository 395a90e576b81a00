"""The calls that are being answered, so that a server that stops can let them end."""

import threading
from collections.abc import Callable


class OpenCalls:
    """The calls between their handler's first line and their last byte on the wire. Thread-safe.

    Once `hold` was called, newcomers wait in `enter` for `let_go`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: set[object] = set()
        self._go = threading.Event()
        self._go.set()

    def enter(self, on_end: Callable[[Callable[[], None]], bool]) -> None:
        """Note a call; `on_end` has a function called once it is over, or returns False if it is already."""
        call = object()
        with self._changed:
            self._calls.add(call)
        if not on_end(lambda: self._leave(call)):
            self._leave(call)
        self._go.wait()

    def hold(self) -> None:
        """Answer no more calls."""
        self._go.clear()

    def let_go(self) -> None:
        """Go on with the calls that were held."""
        self._go.set()

    def wait_for_present(self, timeout_seconds: float) -> bool:
        """Wait until the calls of this moment are over, whatever comes after them; tell whether they are."""
        with self._changed:
            present = set(self._calls)
            return self._changed.wait_for(lambda: present.isdisjoint(self._calls), timeout_seconds)

    def _leave(self, call: object) -> None:
        with self._changed:
            self._calls.discard(call)
            self._changed.notify_all()
