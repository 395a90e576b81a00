"""What to do next: a pure function of what is wanted and what is there.

Unloads come first, because they are short and give memory to the loads; but what still answers for a model
stays until one of its successors does. The baseline of a model is loaded first, and alone, because it takes
the traffic of those that are not there yet; everything else may be loaded side by side.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from flyweight.server.lifecycle.desired import Desired, DesiredModel, VariantSource, is_number

# Every further retry comes twice as late, for what is broken tends to stay so.
_FIRST_RETRY_SECONDS: Final = 1.0
_LAST_RETRY_SECONDS: Final = 60.0

Key = tuple[str, str]
"""A model's name and a variant's."""


class Kind(Enum):
    """What an action does. RELOAD loads the new files, publishes them, and drains the old."""

    LOAD = "load"
    RELOAD = "reload"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do to one variant; `source` says what to load, and is None for an unload."""

    kind: Kind
    model: str
    variant: str
    source: VariantSource | None = None

    @property
    def key(self) -> Key:
        """Return whom it concerns."""
        return self.model, self.variant


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed: with which files, why, how often in a row, and when to try again."""

    source: VariantSource
    reason: str
    count: int
    retry_at_seconds: float


@dataclass(frozen=True, slots=True)
class Actual:
    """What is there: the source of every variant that is served, the failed loads, and the time.

    `busy` are the variants that are being loaded; nothing else is done to them meanwhile.
    """

    serving: Mapping[Key, VariantSource] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[Key, Failure] = field(default_factory=lambda: MappingProxyType({}))
    now_seconds: float = 0.0
    busy: frozenset[Key] = frozenset()


def next_actions(desired: Desired, actual: Actual) -> tuple[Action, ...]:
    """Return what is due, in the order in which it should be begun."""
    loads = [action for model in desired.models.values() for action in _loads(model, actual)]
    coming = {action.model for action in loads} | {model for model, _ in actual.busy}
    unloads = [
        Action(Kind.UNLOAD, model, variant)
        for model, variant in sorted(actual.serving)
        if (model, variant) not in actual.busy
        and _is_unwanted(desired.models.get(model), variant, actual)
        and not (model in coming and _is_last_resort(desired.models.get(model), actual))
    ]
    return (*unloads, *loads)


def first_to_begin(due: Sequence[Action], actual: Actual, load_slots: int) -> Action | None:
    """Return the first of what is due that may begin now, beside what is being done.

    At most `load_slots` loads go on at one time, and of a model that cannot answer yet only one. An ensemble
    is loaded after the models that it runs.
    """
    answering = {model for model, _ in actual.serving}
    loading = {model for model, _ in actual.busy}
    coming = loading | {action.model for action in due if action.kind is not Kind.UNLOAD}
    waiting: Action | None = None
    for action in due:
        if action.kind is Kind.UNLOAD:
            return action
        if len(actual.busy) < load_slots and (action.model in answering or action.model not in loading):
            if not _waits_for(action, coming):
                return action
            waiting = waiting or action
    # Ensembles that wait for each other are tried all the same, for the load says what is wrong with them.
    return None if loading else waiting


def _waits_for(action: Action, coming: Collection[str]) -> bool:
    return action.source is not None and any(step in coming for step in action.source.steps)


def fail(previous: Failure | None, source: VariantSource, reason: str, now_seconds: float) -> Failure:
    """Return the failure to remember after a load of `source` failed; other files start a new count."""
    count = previous.count + 1 if previous is not None and previous.source == source else 1
    # The exponent is bounded before the power is, or a month of retries overflows.
    delay = min(_FIRST_RETRY_SECONDS * 2.0 ** min(count - 1, 10), _LAST_RETRY_SECONDS)
    return Failure(source, reason, count, now_seconds + delay)


def _loads(model: DesiredModel, actual: Actual) -> list[Action]:
    due: list[Action] = []
    for variant in sorted(model.wanted, key=lambda name: _load_order(name, model)):
        source, key = model.wanted[variant], (model.name, variant)
        served, failure = actual.serving.get(key), actual.failed.get(key)
        if served == source or key in actual.busy:
            continue
        if failure is not None and failure.source == source and actual.now_seconds < failure.retry_at_seconds:
            continue
        due.append(Action(Kind.LOAD if served is None else Kind.RELOAD, *key, source))
    return due


def _load_order(name: str, model: DesiredModel) -> tuple[bool, bool, int, str]:
    """Return a sort key: the baseline that is named, the usual name, the newest number, then by name."""
    named = model.traffic.baseline if model.traffic is not None else None
    return name != named, name != "baseline", -int(name) if is_number(name) else 0, name


def _is_unwanted(model: DesiredModel | None, variant: str, actual: Actual) -> bool:
    if model is None:
        return True
    if variant in model.wanted or variant in model.kept:
        return False
    if variant in model.dropped:
        # Its successors are on disk; it answers until every one of them does.
        return all(actual.serving.get((model.name, name)) == source for name, source in model.wanted.items())
    return True


def _is_last_resort(model: DesiredModel | None, actual: Actual) -> bool:
    """Tell whether none of the variants that are wanted of a model can answer yet."""
    return model is not None and not any((model.name, variant) in actual.serving for variant in model.wanted)
