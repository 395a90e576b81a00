"""The board: what is wanted, what is there, and the routing table that follows; one lock, no I/O."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

from flyweight.server.errors import Draining, TrafficPlanError, UnknownModel
from flyweight.server.lifecycle.desired import Desired, desire
from flyweight.server.lifecycle.index import IndexEntry, Picture, list_index
from flyweight.server.lifecycle.observer import Observer
from flyweight.server.lifecycle.overlay import Overlay, Overlays
from flyweight.server.lifecycle.planning import usual_baseline
from flyweight.server.lifecycle.plans import Plans, warn
from flyweight.server.lifecycle.policy import (
    Action,
    Actual,
    Failure,
    Key,
    fail,
    first_to_begin,
    next_actions,
)
from flyweight.server.lifecycle.source import Emission
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.traffic.writing import revision_of


class Board:
    """Every method may be called from any thread. Observers are told under the lock, in order of events.

    Reading `table` takes no lock: it is replaced by one assignment. At most `load_slots` loads are handed out
    at one time, and never two of one variant.
    """

    def __init__(
        self,
        *,
        explicit: bool,
        observers: Sequence[Observer],
        monotonic: Callable[[], float],
        load_slots: int = 1,
    ) -> None:
        self.table = RoutingTable()
        self.changed = threading.Condition()
        self._explicit = explicit
        self._observers = tuple(observers)
        self._monotonic = monotonic
        self._load_slots = load_slots
        # In explicit mode the models that were asked for, otherwise those that were asked away.
        self._named: set[str] = set()
        self._asked_away: set[str] = set()
        self._emission: Emission | None = None
        self._desired = Desired()
        self._serving: dict[Key, LoadedVariant] = {}
        self._sources: dict[Key, Action] = {}
        self._failed: dict[Key, Failure] = {}
        self._busy: dict[Key, Action] = {}
        self._looked_seconds = float("-inf")
        self._is_closed = False
        self._overlays = Overlays()
        self._draining: list[LoadedVariant] = []
        self._plans = Plans(observers)

    def accept(self, emission: Emission) -> None:
        """Take what the source believes; plans follow it at once, loads when the worker gets there."""
        with self.changed:
            before, self._emission = self._emission, emission
            if before is None or before.snapshot != emission.snapshot:
                known = () if before is None else before.snapshot.faults
                warn(fault for fault in emission.snapshot.faults if fault not in known)
                self._desire()
            unreadable = [fault for fault in emission.snapshot.faults if fault.unreadable]
            is_whole = not emission.error and not unreadable
            for observer in self._observers:
                observer.on_scan(ok=is_whole)
            self.changed.notify_all()

    def admit(self, model: str, *, wanted: bool, overlay: Overlay | None = None) -> None:
        """Let a model be served, trying what failed again at once, or let it go.

        It is served as the repository has it, or with an overlay until it is admitted or let go again.
        """
        with self.changed:
            self._overlays.put(model, overlay)
            if wanted == self._explicit:
                self._named.add(model)
            else:
                self._named.discard(model)
            self._asked_away = self._asked_away - {model} if wanted else self._asked_away | {model}
            self._failed = {key: failure for key, failure in self._failed.items() if key[0] != model}
            self._desire()
            self._end_trial(model)
            self.changed.notify_all()

    def forget(self, model: str) -> None:
        """Undo the admission of a model that is not there: of names that callers invent nothing is kept."""
        with self.changed:
            self._overlays.put(model, None)
            self._named.discard(model)
            self._asked_away = self._asked_away - {model}
            self._desire()
            self.changed.notify_all()

    def take(self) -> Action | None:
        """Return an action that may begin, which the caller then does and reports; None for none."""
        with self.changed:
            if self._is_closed:
                return None
            actual = self._actual()
            self._looked_seconds = actual.now_seconds
            action = first_to_begin(next_actions(self._desired, actual), actual, self._load_slots)
            if action is not None and action.source is not None:
                self._busy[action.key] = action
            return action

    def put_loaded(self, action: Action, loaded: LoadedVariant, seconds: float) -> LoadedVariant | None:
        """Publish a loaded variant; return the one it replaces, which is to be retired.

        That is the loaded one itself when its model was asked away, or all were, while it was being loaded.
        """
        with self.changed:
            for observer in self._observers:
                observer.on_load(loaded, seconds)
            self._busy.pop(action.key, None)
            self._failed.pop(action.key, None)
            is_wanted = self._is_admitted(action.model) or action.model in self._desired.models
            if self._is_closed or not is_wanted:
                self._done(loaded)
                return loaded
            replaced = self._serving.get(action.key)
            self._serving[action.key] = loaded
            self._sources[action.key] = action
            # Ensembles may have waited for it.
            self._failed = {
                key: failed for key, failed in self._failed.items() if action.model not in failed.source.steps
            }
            self._end_trial(action.model)
            self._done(replaced)
            return replaced

    def put_failed(self, action: Action, reason: str, seconds: float) -> None:
        """Remember that a load failed; whatever was served still is."""
        with self.changed:
            assert action.source is not None
            self._busy.pop(action.key, None)
            now = self._monotonic()
            self._failed[action.key] = fail(self._failed.get(action.key), action.source, reason, now)
            if self._is_wanted(action) and self._overlays.fail(action.model, reason):
                self._desire()
            for observer in self._observers:
                observer.on_load_failed(action.model, action.variant, reason, seconds)
            self._done(None)

    def has_failed(self, key: Key) -> bool:
        """Tell whether the last load of a variant failed."""
        with self.changed:
            return key in self._failed

    def take_out(self, key: Key) -> LoadedVariant | None:
        """Publish a table without a variant; return it, to be retired."""
        with self.changed:
            removed = self._serving.pop(key, None)
            self._sources.pop(key, None)
            self._done(removed)
            return removed

    def take_all_out(self) -> list[LoadedVariant]:
        """Publish an empty table, at the end; return what was served, to be retired.

        Nothing is published after it: a load that comes to its end later only gives back what it took.
        """
        with self.changed:
            self._is_closed = True
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
            models |= {key[0] for key in self._busy}
            return not models if model is None else model not in models

    def wait_for(self, is_done: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait until something is so; tell whether that came in time.

        Raises:
            Draining: the server stops, and nothing more will come.
        """
        with self.changed:
            self.changed.wait_for(lambda: is_done() or self._is_closed, timeout_seconds)
            if is_done():
                return True
            if self._is_closed:
                raise Draining("The server is shutting down; ask another replica.")
            return False

    def is_read(self, model: str, number: int) -> bool:
        """Tell whether scan `number` was seen, and what it saw of a model is believed."""
        with self.changed:
            emission = self._emission
            return emission is not None and emission.number >= number and model not in emission.changing

    def folder_of(self, model: str) -> Path:
        """Return a model's folder in the repository.

        Raises:
            UnknownModel: the repository has no such model.
            TrafficPlanError: the model is not served from there.
        """
        with self.changed:
            found = self._emission.snapshot.models.get(model) if self._emission is not None else None
            if self._overlays.replaces(model):
                raise TrafficPlanError(
                    f"The model {model!r} is served as it was uploaded, and traffic is kept in the "
                    "repository; load it from there first."
                )
            if found is None:
                raise UnknownModel(f"The repository has no model {model!r} any more.", model)
            return found.folder

    def names_of(self, model: str) -> tuple[frozenset[str], str]:
        """Return the variants that a traffic.yaml may name, and the baseline where it names none."""
        with self.changed:
            ready = {variant: loaded for (name, variant), loaded in self._serving.items() if name == model}
            desired = self._desired.models.get(model)
            names = frozenset({*ready, *(desired.wanted if desired is not None else ())})
            return names, usual_baseline(names, ready)

    def upload_error(self, model: str) -> str:
        """Return why the last upload of a model was taken back; empty when it was not."""
        with self.changed:
            return self._overlays.error(model)

    def folders_in_use(self) -> set[Path] | None:
        """Return the models' folders that are, or may be, read; None when nobody can tell."""
        with self.changed:
            if self._draining:
                return None
            actions = [*self._sources.values(), *self._busy.values()]
            read = {action.source.folder.parent for action in actions if action.source is not None}
            return read | self._overlays.folders()

    def plan_error(self, model: str) -> str:
        """Return why a model's traffic.yaml cannot be followed; empty when it can."""
        with self.changed:
            return self._plans.error(model)

    def seconds_to_retry(self) -> float | None:
        """Return how long until the next failed load is due again; None when there is none.

        What was due at the last `take` and was not handed out waits for a load to end, not for the clock.
        """
        with self.changed:
            times = (failure.retry_at_seconds for failure in self._failed.values())
            due = [seconds for seconds in times if seconds > self._looked_seconds]
            return max(0.0, min(due) - self._monotonic()) if due else None

    def picture(self) -> Picture:
        """Return everything that is known, for the index and for whoever waits for a model."""
        with self.changed:
            return Picture(
                emission=self._emission,
                desired=self._desired,
                serving=frozenset(self._serving),
                failed=MappingProxyType({key: failure.reason for key, failure in self._failed.items()}),
                busy=frozenset(self._busy),
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
        snapshot = self._overlays.apply(self._emission.snapshot)
        self._desired = desire(snapshot, self._is_admitted, self._may_follow)
        wanted = {source for model in self._desired.models.values() for source in model.wanted.values()}
        # A failure is about certain files: others, even if older ones came back, are to be tried at once.
        self._failed = {key: failure for key, failure in self._failed.items() if failure.source in wanted}
        self._publish()

    def _is_wanted(self, action: Action) -> bool:
        """Tell whether a load was for what is wanted now, and not for what was before an upload."""
        desired = self._desired.models.get(action.model)
        return desired is not None and desired.wanted.get(action.variant) == action.source

    def _end_trial(self, model: str) -> None:
        """Keep an upload once every variant of it is served."""
        desired = self._desired.models.get(model)
        if desired is None or not self._overlays.on_trial(model):
            return
        sources = self._actual().serving
        if all(sources.get((model, name)) == source for name, source in desired.wanted.items()):
            self._overlays.succeed(model)

    def _is_admitted(self, model: str) -> bool:
        return (model in self._named) == self._explicit

    def _may_follow(self, model: str) -> bool:
        """Tell whether a model is served because an ensemble that was asked for runs it."""
        return self._explicit and model not in self._asked_away

    def _actual(self) -> Actual:
        sources = {key: action.source for key, action in self._sources.items() if action.source is not None}
        return Actual(sources, self._failed, self._monotonic(), frozenset(self._busy))

    def _done(self, retired: LoadedVariant | None) -> None:
        if retired is not None:
            self._draining.append(retired)
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
        self._plans.keep(models)
        self.table = RoutingTable(MappingProxyType(models), before.generation + 1, waiting)
        for observer in self._observers:
            for model, served in models.items():
                if served is not before.models.get(model):
                    observer.on_plan(served)
            observer.on_table(self.table)

    def _serve(self, model: str, variants: dict[str, LoadedVariant]) -> ServedModel:
        """Return a model as it is to be served now."""
        failed = {variant: it.reason for (name, variant), it in self._failed.items() if name == model}
        emission = self._emission
        snapshot = emission.snapshot.models.get(model) if emission is not None else None
        revision = revision_of(snapshot.traffic_text if snapshot is not None else None)
        desired = self._desired.models.get(model, model)
        return self._plans.serve(desired, variants, failed, revision, self.table.models.get(model))
