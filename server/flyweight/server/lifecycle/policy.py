"""What to do next: a pure function of what is wanted and what is there.

Loads come before unloads, so that a model is never without an answer while its successor is brought up, and
the baseline is loaded first, because it takes the traffic of those that are not there yet.
"""

from collections.abc import Mapping
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
    """What is there: the source of every variant that is served, the failed loads, and the time."""

    serving: Mapping[Key, VariantSource] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[Key, Failure] = field(default_factory=lambda: MappingProxyType({}))
    now_seconds: float = 0.0


def next_actions(desired: Desired, actual: Actual) -> tuple[Action, ...]:
    """Return what is due, in the order in which it should be done."""
    loads = [action for model in desired.models.values() for action in _loads(model, actual)]
    unloads = [
        Action(Kind.UNLOAD, model, variant)
        for model, variant in sorted(actual.serving)
        if _is_unwanted(desired.models.get(model), variant, actual)
    ]
    return (*loads, *unloads)


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
        if served == source:
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
