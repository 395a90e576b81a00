"""Changes of traffic that are asked for from afar: written to the repository, and waited for until in force.

The repository stays the single source of truth. A change is a new traffic.yaml; the source sees it as it
would see anybody else's, and whoever asked is answered with the plan that came of it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flyweight.server.errors import Conflict, DeadlineExceeded, InvalidRequest, TrafficPlanError
from flyweight.server.lifecycle.board import Board
from flyweight.server.lifecycle.table import ServedModel
from flyweight.server.traffic.folder import TrafficFolder
from flyweight.server.traffic.plan import TrafficFile, parse_plan, resolve
from flyweight.server.traffic.writing import Promotion, read_history, render, revision_of, write_history


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to stand in traffic.yaml, and what is to be remembered; None leaves that as it is."""

    traffic: TrafficFile
    history: tuple[Promotion, ...] | None = None


_Decide = Callable[[str | None, TrafficFolder], _Change]


class TrafficChanges:
    """Changes who answers. Every method may be called from any thread, and answers when the plan is in force.

    Args:
        board: knows what is served.
        request_scan: has the repository read again, and returns the number of the scan that sees it as it is.
        monotonic: the clock.
    """

    def __init__(
        self, board: Board, request_scan: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._request_scan = request_scan
        self._monotonic = monotonic
        # One at a time in this process; other processes are kept out by the folder's own lock.
        self._lock = threading.Lock()

    def set(
        self, name: str, traffic: TrafficFile, expected_revision: str, timeout_seconds: float
    ) -> ServedModel:
        """Replace the whole plan of a model; an empty `expected_revision` replaces any.

        Raises:
            UnknownModel, NotReady: the model is not served.
            InvalidRequest: the plan contradicts itself.
            Conflict: another change was faster.
            TrafficPlanError: it names a variant that is not there.
            RepositoryError: it cannot be written.
            DeadlineExceeded: it was not in force within `timeout_seconds`.
        """

        def decide(text: str | None, _: TrafficFolder) -> _Change:
            current = revision_of(text)
            if expected_revision not in ("", current):
                raise Conflict(
                    f"The traffic of {name!r} is no longer at revision {expected_revision!r} but at "
                    f"{current!r}; look at it again, then set it."
                )
            return _Change(traffic)

        return self._change(name, decide, timeout_seconds)

    def promote(self, name: str, variant: str, timeout_seconds: float) -> ServedModel:
        """Make a ready variant, or the one that has this label, the baseline, and give it all the traffic.

        Raises:
            UnknownModel, UnknownVariant, NotReady: the model or the variant is not served.
            TrafficPlanError: the traffic.yaml that is there cannot be followed.
            RepositoryError, DeadlineExceeded, Conflict: as for `set`.
        """

        def decide(text: str | None, folder: TrafficFolder) -> _Change:
            served = self._board.table.model(name)
            promoted = served.variant(variant).name
            current = _current(text, folder.path)
            before = current.baseline or served.baseline
            traffic = replace(current, baseline=promoted, split=None)
            if before == promoted:
                return _Change(traffic)
            moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            return _Change(
                traffic, (*read_history(folder.read_history()), Promotion(promoted, before, moment))
            )

        return self._change(name, decide, timeout_seconds)

    def roll_back(self, name: str, timeout_seconds: float) -> ServedModel:
        """Undo the last promotion: the baseline from before it gets all the traffic again.

        Raises:
            TrafficPlanError: there is none, the baseline was changed since, or the old one is not ready.
            UnknownModel, NotReady, RepositoryError, DeadlineExceeded, Conflict: as for `set`.
        """

        def decide(text: str | None, folder: TrafficFolder) -> _Change:
            served = self._board.table.model(name)
            current = _current(text, folder.path)
            history = read_history(folder.read_history())
            last = _undoable(history, current.baseline or served.baseline, served)
            return _Change(replace(current, baseline=last.before, split=None), history[:-1])

        return self._change(name, decide, timeout_seconds)

    def _change(self, name: str, decide: _Decide, timeout_seconds: float) -> ServedModel:
        ends = self._monotonic() + timeout_seconds
        # Before anything is written: what nobody is served from has no plan that could come into force.
        self._board.table.model(name)
        folder = TrafficFolder(self._board.folder_of(name))
        with self._lock, folder.lock(lambda: ends - self._monotonic(), threading.Event().wait):
            text = folder.read()
            change = decide(text, folder)
            wanted = render(change.traffic, text or "")
            self._check(name, wanted, folder.path)
            _write(folder, wanted, change.history)
            number = self._request_scan()
        return self._await(name, wanted, number, ends)

    def _check(self, name: str, text: str, path: Path) -> None:
        try:
            traffic = parse_plan(text, Path(f"The plan for {name}"))
        except TrafficPlanError as error:
            raise InvalidRequest(str(error)) from error
        names, baseline = self._board.names_of(name)
        resolve(replace(traffic, path=path), names, baseline)

    def _await(self, name: str, text: str, number: int, ends: float) -> ServedModel:
        with self._board.changed:
            left = ends - self._monotonic()
            if not self._board.wait_for(lambda: self._board.is_read(name, number), left):
                raise DeadlineExceeded(
                    f"The traffic of {name!r} was written, and is not in force yet; it will be."
                )
            served = self._board.table.model(name)
            error = self._board.plan_error(name)
        if served.revision != revision_of(text):
            raise Conflict(f"The traffic of {name!r} was changed again before it was in force.")
        if error:
            raise TrafficPlanError(error)
        return served


def _write(folder: TrafficFolder, text: str, history: tuple[Promotion, ...] | None) -> None:
    """Write what is remembered, then what follows from it: both, or after an error neither."""
    if history is None:
        folder.write(text)
        return
    before = folder.read_history()
    folder.write_history(write_history(history))
    try:
        folder.write(text)
    except BaseException:
        folder.write_history(before)
        raise


def _current(text: str | None, path: Path) -> TrafficFile:
    return TrafficFile(path) if text is None else parse_plan(text, path)


def _undoable(history: tuple[Promotion, ...], baseline: str, served: ServedModel) -> Promotion:
    """Return the last promotion, if it can be undone."""
    name = served.name
    if not history:
        raise TrafficPlanError(f"No promotion in {name!r} is remembered; set its traffic instead.")
    last = history[-1]
    if last.promoted != baseline:
        raise TrafficPlanError(
            f"The last promotion made {last.promoted!r} the baseline of {name!r}, and by now it is "
            f"{baseline!r}; set its traffic instead."
        )
    if last.before not in served.variants:
        raise TrafficPlanError(
            f"The baseline of {name!r} before the last promotion, {last.before!r}, is not ready; publish it "
            "again, or set the traffic."
        )
    return last
