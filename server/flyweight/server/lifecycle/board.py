"""The board: what is wanted, what is there, and the routing table that follows; one lock, no I/O."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from flyweight.server.lifecycle.desired import Desired, DesiredModel, desire
from flyweight.server.lifecycle.index import IndexEntry, Picture, list_index
from flyweight.server.lifecycle.observer import Observer
from flyweight.server.lifecycle.planning import Planned, keep_plan, plan_model
from flyweight.server.lifecycle.policy import Action, Actual, Failure, Key, fail, next_actions
from flyweight.server.lifecycle.source import Emission
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.repository.snapshot import Fault

if TYPE_CHECKING:
    from flyweight.server.traffic.plan import Plan

_log = logging.getLogger(__name__)


class Board:
    """Every method may be called from any thread. Observers are told under the lock, in order of events.

    Reading `table` takes no lock: it is replaced by one assignment.
    """

    def __init__(
        self, *, explicit: bool, observers: Sequence[Observer], monotonic: Callable[[], float]
    ) -> None:
        self.table = RoutingTable()
        self.changed = threading.Condition()
        self._explicit = explicit
        self._observers = tuple(observers)
        self._monotonic = monotonic
        # In explicit mode the models that were asked for, otherwise those that were asked away.
        self._named: set[str] = set()
        self._asked_away: set[str] = set()
        self._emission: Emission | None = None
        self._desired = Desired()
        self._serving: dict[Key, LoadedVariant] = {}
        self._sources: dict[Key, Action] = {}
        self._failed: dict[Key, Failure] = {}
        self._busy: Action | None = None
        self._draining: list[LoadedVariant] = []
        self._plans: dict[str, Plan] = {}
        self._plan_errors: dict[str, str] = {}

    def accept(self, emission: Emission) -> None:
        """Take what the source believes; plans follow it at once, loads when the worker gets there."""
        with self.changed:
            before, self._emission = self._emission, emission
            if before is None or before.snapshot != emission.snapshot:
                known = () if before is None else before.snapshot.faults
                _warn(fault for fault in emission.snapshot.faults if fault not in known)
                self._desire()
            unreadable = [fault for fault in emission.snapshot.faults if fault.unreadable]
            is_whole = not emission.error and not unreadable
            for observer in self._observers:
                observer.on_scan(ok=is_whole)
            self.changed.notify_all()

    def admit(self, model: str, *, wanted: bool) -> None:
        """Let a model be served, trying what failed again at once, or let it go."""
        with self.changed:
            if wanted == self._explicit:
                self._named.add(model)
            else:
                self._named.discard(model)
            self._asked_away = self._asked_away - {model} if wanted else self._asked_away | {model}
            self._failed = {key: failure for key, failure in self._failed.items() if key[0] != model}
            self._desire()
            self.changed.notify_all()

    def take(self) -> Action | None:
        """Return the next action, which the caller then does and reports; None when nothing is due."""
        with self.changed:
            actions = next_actions(self._desired, self._actual())
            self._busy = actions[0] if actions else None
            return self._busy

    def put_loaded(self, action: Action, loaded: LoadedVariant, seconds: float) -> LoadedVariant | None:
        """Publish a loaded variant; return the one it replaces, which is to be retired."""
        with self.changed:
            for observer in self._observers:
                observer.on_load(loaded, seconds)
            replaced = self._serving.get(action.key)
            self._serving[action.key] = loaded
            self._sources[action.key] = action
            self._failed.pop(action.key, None)
            self._done(replaced)
            return replaced

    def put_failed(self, action: Action, reason: str, seconds: float) -> None:
        """Remember that a load failed; whatever was served still is."""
        with self.changed:
            assert action.source is not None
            now = self._monotonic()
            self._failed[action.key] = fail(self._failed.get(action.key), action.source, reason, now)
            for observer in self._observers:
                observer.on_load_failed(action.model, action.variant, reason, seconds)
            self._done(None)

    def take_out(self, key: Key) -> LoadedVariant | None:
        """Publish a table without a variant; return it, to be retired."""
        with self.changed:
            removed = self._serving.pop(key, None)
            self._sources.pop(key, None)
            self._done(removed)
            return removed

    def take_all_out(self) -> list[LoadedVariant]:
        """Publish an empty table, at the end; return what was served, to be retired."""
        with self.changed:
            removed = list(self._serving.values())
            self._serving.clear()
            self._sources.clear()
            self._draining += removed
            self._done(None)
            return removed

    def put_closed(self, loaded: LoadedVariant) -> None:
        """Note that a retired variant's runtime is closed."""
        with self.changed:
            self._draining.remove(loaded)
            for observer in self._observers:
                observer.on_unload(loaded.model, loaded.name)
            self.changed.notify_all()

    def is_drained(self, model: str | None = None) -> bool:
        """Tell whether no retired variant, of a model or of all, is still in use."""
        with self.changed:
            return not any(model in (None, loaded.model) for loaded in self._draining)

    def is_settled(self, model: str | None = None, number: int = 1) -> bool:
        """Tell whether scan `number` was seen, and all it asks of a model (or of all) is done or failed."""
        with self.changed:
            emission = self._emission
            if emission is None or emission.number < number:
                return False
            due = next_actions(self._desired, self._actual())
            models = {action.model for action in due} | emission.changing
            if self._busy is not None:
                models.add(self._busy.model)
            return not models if model is None else model not in models

    def seconds_to_retry(self) -> float | None:
        """Return how long until the next failed load is due again; None when there is none."""
        with self.changed:
            due = [failure.retry_at_seconds for failure in self._failed.values()]
            return max(0.0, min(due) - self._monotonic()) if due else None

    def picture(self) -> Picture:
        """Return everything that is known, for the index and for whoever waits for a model."""
        with self.changed:
            return Picture(
                emission=self._emission,
                desired=self._desired,
                serving=frozenset(self._serving),
                failed=MappingProxyType({key: failure.reason for key, failure in self._failed.items()}),
                busy=self._busy,
                draining=frozenset((loaded.model, loaded.name) for loaded in self._draining),
                faults=tuple(fault for served in self.table.models.values() for fault in served.faults),
                asked_away=frozenset(self._asked_away),
            )

    def index(self) -> list[IndexEntry]:
        """Return the repository index."""
        return list_index(self.picture())

    def _desire(self) -> None:
        if self._emission is None:
            return
        self._desired = desire(self._emission.snapshot, self._is_admitted)
        wanted = {source for model in self._desired.models.values() for source in model.wanted.values()}
        # A failure is about certain files: others, even if older ones came back, are to be tried at once.
        self._failed = {key: failure for key, failure in self._failed.items() if failure.source in wanted}
        self._publish()

    def _is_admitted(self, model: str) -> bool:
        return (model in self._named) == self._explicit

    def _actual(self) -> Actual:
        sources = {key: action.source for key, action in self._sources.items() if action.source is not None}
        return Actual(sources, self._failed, self._monotonic())

    def _done(self, retired: LoadedVariant | None) -> None:
        if retired is not None:
            self._draining.append(retired)
        self._busy = None
        self._publish()
        self.changed.notify_all()

    def _publish(self) -> None:
        """Replace the table, and tell the observers which models changed."""
        ready: dict[str, dict[str, LoadedVariant]] = {}
        for (model, variant), loaded in sorted(self._serving.items()):
            ready.setdefault(model, {})[variant] = loaded
        models = {model: self._serve(model, variants) for model, variants in ready.items()}
        waiting = frozenset(self._desired.models) - frozenset(models)
        before = self.table
        self._plans = {model: plan for model, plan in self._plans.items() if model in models}
        self._plan_errors = {model: error for model, error in self._plan_errors.items() if model in models}
        self.table = RoutingTable(MappingProxyType(models), before.generation + 1, waiting)
        for observer in self._observers:
            for model, served in models.items():
                if served is not before.models.get(model):
                    observer.on_plan(served)
            observer.on_table(self.table)

    def _serve(self, model: str, variants: dict[str, LoadedVariant]) -> ServedModel:
        """Return the model as it is to be served: the very object of the last table if nothing changed."""
        desired, last_good = self._desired.models.get(model), self._plans.get(model)
        if desired is None:
            plan, faults = keep_plan(variants, last_good), tuple[Fault, ...]()
        else:
            failed = [variant for name, variant in self._failed if name == model]
            planned = plan_model(desired, variants, last_good, failed)
            plan, faults = planned.plan, self._faults(desired, planned)
            known = self.table.models[model].faults if model in self.table.models else ()
            _warn(fault for fault in planned.faults if fault.variant and fault not in known)
            if planned.last_good is not None:
                self._plans[model] = planned.last_good
            self._report_error(model, planned.error)
        served = ServedModel(model, MappingProxyType(variants), plan, faults)
        before = self.table.models.get(model)
        if before is not None and _is_same(before, served):
            return before
        _tell(before, served)
        return served

    def _faults(self, desired: DesiredModel, planned: Planned) -> tuple[Fault, ...]:
        failures = {Fault(*key, it.reason) for key, it in self._failed.items() if key[0] == desired.name}
        return tuple(sorted({*desired.faults, *failures, *planned.faults}))

    def _report_error(self, model: str, error: str) -> None:
        if error and self._plan_errors.get(model) != error:
            _log.warning("%s The last good plan stays in force.", error)
            for observer in self._observers:
                observer.on_plan_error(model, error)
        self._plan_errors[model] = error


def _is_same(a: ServedModel, b: ServedModel) -> bool:
    return dict(a.variants) == dict(b.variants) and a.plan == b.plan and a.faults == b.faults


def _tell(before: ServedModel | None, served: ServedModel) -> None:
    if before is None or before.plan != served.plan:
        shares = ", ".join(f"{name} {weight:.4g}" for name, weight in served.plan.weights)
        _log.info("%s: the traffic goes to %s.", served.name, shares)


def _warn(faults: Iterable[Fault]) -> None:
    for fault in faults:
        _log.warning("%s: %s", fault.model, fault.reason)
