"""When a scan may be believed: folders are filled and texts written while they are read. Pure.

A variant with a manifest is believed at once, for its digests decide whether it is whole. Everything else has
to look the same in two scans some time apart: a variant without a manifest, the text of a config.pbtxt or
traffic.yaml, and that something is gone (a variant that is being replaced is missing for a moment).
What could not be read stays as it was: a file server's hiccup unloads nothing.

At the first scan a variant without a manifest is believed as well when it is old: nobody is filling it.
"""

from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

from flyweight.protos.variant import MANIFEST_FILE
from flyweight.server.repository.snapshot import ModelSnapshot, Snapshot, VariantSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Settled:
    """What is believed, and the names of the models in which something is still changing."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    changing: frozenset[str] = frozenset()


def settle(
    believed: Snapshot | None, earlier: Snapshot | None, scanned: Snapshot, old_ns: float = -inf
) -> Settled:
    """Return what may be believed after a scan.

    Args:
        believed: what was believed before; None at the first scan, when texts are taken as they are.
        earlier: a scan some time before this one, to compare with; None when there is none.
        scanned: the scan.
        old_ns: what did not change after this moment is old; nanoseconds since 1970.
    """
    before = believed or Snapshot()
    unreadable = {(fault.model, fault.variant) for fault in scanned.faults if fault.unreadable}
    old_at = old_ns if believed is None else -inf
    models: dict[str, ModelSnapshot] = {}
    changing: set[str] = set()
    for name in sorted({*before.models, *scanned.models}):
        old, new = before.models.get(name), scanned.models.get(name)
        then = None if earlier is None else earlier.models.get(name)
        if new is None:
            gone = then is None and earlier is not None and (name, "") not in unreadable
            if old is not None and not gone:
                models[name] = old
            if not gone and (name, "") not in unreadable:
                changing.add(name)
            continue
        settled = _settle_model(old, then, new, old_at, first=believed is None, unreadable=unreadable)
        if settled is not None:
            models[name] = settled
        if settled != new and not _only_unreadable(settled, new, unreadable):
            changing.add(name)
    return Settled(Snapshot(MappingProxyType(models), scanned.faults), frozenset(changing))


def _settle_model(
    old: ModelSnapshot | None,
    then: ModelSnapshot | None,
    new: ModelSnapshot,
    old_at: float,
    *,
    first: bool,
    unreadable: set[tuple[str, str]],
) -> ModelSnapshot | None:
    same_texts = then is not None and _texts(then) == _texts(new)
    if not same_texts and not first and old is None:
        # A new model: better a moment later than loaded twice, because its config.pbtxt comes last.
        return None
    kept = (
        {}
        if old is None
        else {name: variant for name, variant in old.variants.items() if (new.name, name) in unreadable}
    )
    variants = {**kept, **_settle_variants(old, then, new, old_at)}
    texts = new if same_texts or first or old is None else old
    return replace(
        new,
        variants=MappingProxyType(dict(sorted(variants.items()))),
        config_text=texts.config_text,
        traffic_text=texts.traffic_text,
    )


def _settle_variants(
    old: ModelSnapshot | None, then: ModelSnapshot | None, new: ModelSnapshot, old_at: float
) -> dict[str, VariantSnapshot]:
    before: Mapping[str, VariantSnapshot] = {} if old is None else old.variants
    earlier: Mapping[str, VariantSnapshot] = {} if then is None else then.variants
    settled: dict[str, VariantSnapshot] = {}
    for name in {*before, *new.variants}:
        scanned = new.variants.get(name)
        if scanned is None:
            if name in earlier or then is None:
                settled[name] = before[name]
        elif (
            scanned.fingerprint.has(MANIFEST_FILE)
            or scanned == earlier.get(name)
            or scanned.fingerprint.changed_ns <= old_at
        ):
            settled[name] = scanned
        elif name in before:
            settled[name] = before[name]
    return settled


def _texts(model: ModelSnapshot) -> tuple[str | None, str | None]:
    return model.config_text, model.traffic_text


def _only_unreadable(
    settled: ModelSnapshot | None, new: ModelSnapshot, unreadable: set[tuple[str, str]]
) -> bool:
    """Tell whether what was settled differs from the scan only by variants that could not be read."""
    if settled is None or _texts(settled) != _texts(new):
        return False
    readable = {
        name: variant for name, variant in settled.variants.items() if (new.name, name) not in unreadable
    }
    return readable == dict(new.variants)
