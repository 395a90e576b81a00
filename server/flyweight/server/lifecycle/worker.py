"""The worker: does what the policy says. It unloads by itself, and has others load, so that neither waits."""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from flyweight.protos.errors import FlyweightError
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.desired import VariantSource
from flyweight.server.lifecycle.policy import Action
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.survival import survive

_log = logging.getLogger(__name__)


class Worker:
    """Executes actions. `step` has one caller at a time: the manager's worker thread, or a test.

    Args:
        board: says what is to be done and takes the results.
        load: brings up a variant; called by as many threads at once as the board hands out loads.
        spawn: has a job done elsewhere, at once, or raises LoadFailed; a test does it on the spot.
        monotonic: the clock.
        wake: is called when there is a reason to call `step` again; from any thread.
    """

    def __init__(
        self,
        board: Board,
        load: Callable[[VariantSource], LoadedVariant],
        spawn: Callable[[Callable[[], None]], None],
        monotonic: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._board = board
        self._load_variant = load
        self._spawn = spawn
        self._monotonic = monotonic
        self._wake = wake
        # Never longer than the number of retired variants; append and popleft are atomic.
        self._idle: deque[LoadedVariant] = deque()
        self._is_last = False

    def step(self) -> bool:
        """Close what is idle and begin the next action; tell whether there was one."""
        self.close_idle()
        action = self._board.take()
        if action is None:
            return False
        if action.source is None:
            self.retire(self._board.take_out(action.key))
            _log.info("%s/%s is no longer served.", *action.key)
        else:
            self._begin(action)
        return True

    def finish(self) -> None:
        """Take everything out of service; from now on, what ends late is closed by whoever ends it."""
        self._is_last = True
        for loaded in self._board.take_all_out():
            self.retire(loaded)
        self.close_idle()

    def retire(self, loaded: LoadedVariant | None) -> None:
        """Give out no more leases of a variant that is out of the table; it is closed after its last one."""
        if loaded is not None:
            loaded.leases.retire(lambda: self._on_idle(loaded))

    def close_idle(self) -> None:
        """Close the runtimes whose last lease has ended."""
        while True:
            try:
                loaded = self._idle.popleft()
            except IndexError:
                return
            survive(f"closing {loaded.model}/{loaded.name}", loaded.runtime.close, lambda _: None)
            self._board.put_closed(loaded)

    def _on_idle(self, loaded: LoadedVariant) -> None:
        # On the thread of whoever held the last lease: a request must not pay for an unload.
        self._idle.append(loaded)
        self._wake()

    def _begin(self, action: Action) -> None:
        try:
            self._spawn(partial(self._load, action))
        except LoadFailed as error:
            _log.warning("%s was not loaded: %s", "/".join(action.key), error)
            self._board.put_failed(action, str(error), 0.0)

    def _load(self, action: Action) -> None:
        began = self._monotonic()
        what = "/".join(action.key)
        result = survive(
            f"loading {what}",
            lambda: self._attempt(action),
            lambda error: f"{what} could not be loaded ({type(error).__name__}); the server's log says more.",
        )
        seconds = self._monotonic() - began
        if isinstance(result, str):
            _log.warning("%s was not loaded: %s", what, result)
            self._board.put_failed(action, result, seconds)
        else:
            _log.info("%s was loaded in %.3f s.", what, seconds)
            self.retire(self._board.put_loaded(action, result, seconds))
        self._wake()
        if self._is_last:
            self.close_idle()

    def _attempt(self, action: Action) -> LoadedVariant | str:
        """Return the loaded variant, or the sentence that says why there is none."""
        assert action.source is not None
        try:
            return self._load_variant(action.source)
        except FlyweightError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename or action.source.folder} cannot be read ({error.strerror}); check it."
