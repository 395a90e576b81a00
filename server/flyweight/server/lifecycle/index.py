"""The repository index: every model and variant that is known, its state, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flyweight.server.lifecycle.desired import Desired, DesiredModel
from flyweight.server.lifecycle.policy import Key
from flyweight.server.lifecycle.source import Emission
from flyweight.server.repository.snapshot import Fault

_LEFT_OUT: Final = "left out by the version policy"
_UNDECIDED: Final = "not loaded while config.pbtxt or traffic.yaml cannot be followed"


class State(StrEnum):
    """A variant's state, in the words of Triton's repository index."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True, order=True)
class IndexEntry:
    """One line of the index.

    The `reason` of a READY or UNAVAILABLE line says what is wrong: a READY variant may have one, when its
    newer files could not be loaded. UNKNOWN is what nobody asked to be served. A line with an empty `version`
    is about the whole model, for example its traffic.yaml.
    """

    name: str
    version: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything the manager knows at one moment; `busy` are the variants that are being loaded."""

    emission: Emission | None
    desired: Desired
    serving: frozenset[Key]
    failed: Mapping[Key, str]
    busy: frozenset[Key]
    draining: frozenset[Key]
    faults: tuple[Fault, ...]
    asked_away: frozenset[str] = frozenset()

    def reasons(self, model: str) -> list[str]:
        """Return why variants of a model could not be loaded, and what else is wrong with the model."""
        desired = self.desired.models.get(model)
        faults = desired.faults if desired is not None else ()
        return [reason for key, reason in sorted(self.failed.items()) if key[0] == model] + [
            fault.reason for fault in faults
        ]


def list_index(picture: Picture) -> list[IndexEntry]:
    """Return the index in order of model and variant. Pure."""
    entries: dict[Key, IndexEntry] = {}
    for key in picture.draining:
        entries[key] = IndexEntry(*key, State.UNLOADING, "")
    for key in picture.serving:
        entries[key] = IndexEntry(*key, State.READY, "")
    for model in picture.desired.models.values():
        for entry in _model_entries(model, picture):
            entries[entry.name, entry.version] = entry
    for fault in (*_all_faults(picture), *picture.desired.faults):
        _add_fault(entries, fault, picture)
    for name in _unloaded(picture):
        state, reason = State.UNKNOWN, "not loaded"
        if name in picture.asked_away:
            state, reason = State.UNAVAILABLE, "unloaded"
        entries.setdefault((name, ""), IndexEntry(name, "", state, reason))
    return sorted(entries.values())


def _model_entries(model: DesiredModel, picture: Picture) -> list[IndexEntry]:
    entries = [_entry((model.name, variant), picture) for variant in model.wanted]
    left = dict.fromkeys(sorted(model.dropped), _LEFT_OUT) | dict.fromkeys(sorted(model.kept), _UNDECIDED)
    for variant, reason in left.items():
        key = (model.name, variant)
        is_served = key in picture.serving
        entries.append(
            IndexEntry(*key, State.READY if is_served else State.UNKNOWN, "" if is_served else reason)
        )
    return entries


def _entry(key: Key, picture: Picture) -> IndexEntry:
    reason = picture.failed.get(key, "")
    if key in picture.serving:
        return IndexEntry(*key, State.READY, reason)
    if key in picture.busy:
        return IndexEntry(*key, State.LOADING, reason)
    return (
        IndexEntry(*key, State.UNAVAILABLE, reason) if reason else IndexEntry(*key, State.LOADING, "waiting")
    )


def _all_faults(picture: Picture) -> list[Fault]:
    models = picture.desired.models.values()
    return sorted({*picture.faults, *(fault for model in models for fault in model.faults)})


def _add_fault(entries: dict[Key, IndexEntry], fault: Fault, picture: Picture) -> None:
    """Add a fault's reason to its line, once."""
    key = (fault.model, fault.variant)
    found = entries.get(key)
    if found is None:
        is_served = not fault.variant and any(model == fault.model for model, _ in picture.serving)
        found = IndexEntry(*key, State.READY if is_served else State.UNAVAILABLE, "")
    if fault.reason not in found.reason:
        reason = f"{found.reason} {fault.reason}".strip()
        found = IndexEntry(*key, found.state, reason)
    entries[key] = found


def _unloaded(picture: Picture) -> list[str]:
    if picture.emission is None:
        return []
    return sorted(set(picture.emission.snapshot.models) - set(picture.desired.models))
