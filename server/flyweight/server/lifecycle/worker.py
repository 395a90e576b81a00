"""The worker: does what the policy says, one action after the other."""

import logging
from collections import deque
from collections.abc import Callable

from flyweight.protos.errors import FlyweightError
from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.border import survive
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.lifecycle.policy import Action
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.runtime.seam import RuntimeFactory

_log = logging.getLogger(__name__)


class Worker:
    """Executes actions. `step` has one caller at a time: the manager's worker thread, or a test.

    Args:
        board: says what is to be done and takes the results.
        factory: makes runtimes.
        intra_op_threads: the operator's word against the manifests'; 0 leaves it to them.
        monotonic: the clock.
        wake: is called when there is a reason to call `step` again; from any thread.
    """

    def __init__(
        self,
        board: Board,
        factory: RuntimeFactory,
        intra_op_threads: int,
        monotonic: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._board = board
        self._factory = factory
        self._intra_op_threads = intra_op_threads
        self._monotonic = monotonic
        self._wake = wake
        # Never longer than the number of retired variants; append and popleft are atomic.
        self._idle: deque[LoadedVariant] = deque()

    def step(self) -> bool:
        """Close what is idle and do the next action; tell whether there was one."""
        self.close_idle()
        action = self._board.take()
        if action is None:
            return False
        if action.source is None:
            self.retire(self._board.take_out(action.key))
            _log.info("%s/%s is no longer served.", *action.key)
        else:
            self._load(action)
        return True

    def retire(self, loaded: LoadedVariant | None) -> None:
        """Give out no more leases of a variant that is out of the table; it is closed after its last one."""
        if loaded is not None:
            loaded.leases.retire(lambda: self._on_idle(loaded))

    def close_idle(self) -> None:
        """Close the runtimes whose last lease has ended."""
        while self._idle:
            loaded = self._idle.popleft()
            survive(f"closing {loaded.model}/{loaded.name}", loaded.runtime.close, lambda _: None)
            self._board.put_closed(loaded)

    def _on_idle(self, loaded: LoadedVariant) -> None:
        # On the thread of whoever held the last lease: a request must not pay for an unload.
        self._idle.append(loaded)
        self._wake()

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
            return
        _log.info("%s was loaded in %.3f s.", what, seconds)
        self.retire(self._board.put_loaded(action, result, seconds))

    def _attempt(self, action: Action) -> LoadedVariant | str:
        """Return the loaded variant, or the sentence that says why there is none."""
        assert action.source is not None
        try:
            return load_variant(action.source, self._factory, self._intra_op_threads)
        except FlyweightError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename or action.source.folder} cannot be read ({error.strerror}); check it."
