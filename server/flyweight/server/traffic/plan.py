"""traffic.yaml as the user writes it, and the plan that it makes for the variants that are there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from flyweight.server.errors import TrafficPlanError
from flyweight.server.traffic.document import DEFAULT_STICKY_METADATA, DEFAULT_STICKY_PARAMETER, read_document

# Percentages are decimal fractions that a user rounded; this much is rounding, more is a mistake.
_TOLERANCE_PERCENT: Final = 1e-6


class Role(StrEnum):
    """What a variant is to its model; PINNED is only ever said to a caller who asked for one by name."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"
    PINNED = "pinned"


class Reason(StrEnum):
    """Why a variant answers.

    By weight, by the caller's key or sequence, by name, for want of a split or of a choice, because the
    server is busy, or because the process of the variant that was chosen died.
    """

    SPLIT = "split"
    STICKY = "sticky"
    PINNED = "pinned"
    DEFAULT = "default"
    ONLY = "only"
    BROWNOUT = "brownout"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class Brownout:
    """Requests go to the variant `to` while more than the share `above` (0 to 1) of their queue is taken."""

    to: str
    above: float


@dataclass(frozen=True, slots=True)
class TrafficFile:
    """A well-formed traffic.yaml; whether its variants exist is `resolve`'s question.

    `split` is percent by variant, adding up to 100; None when the file has none. `labels` are variants by
    label. `fallback` answers when the process of the variant that was chosen died.
    """

    path: Path
    baseline: str | None = None
    split: Mapping[str, float] | None = None
    sticky_parameter: str = DEFAULT_STICKY_PARAMETER
    sticky_metadata: str = DEFAULT_STICKY_METADATA
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    fallback: str | None = None
    brownout: Brownout | None = None

    def named(self) -> dict[str, str]:
        """Return every variant that the file names, each with the key that names it."""
        found = dict.fromkeys(self.split or {}, "split")
        if self.brownout is not None:
            found[self.brownout.to] = "brownout"
        if self.fallback is not None:
            found[self.fallback] = "fallback"
        found |= dict.fromkeys(self.labels.values(), "labels")
        if self.baseline is not None:
            found[self.baseline] = "baseline"
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """How the requests of one model are shared out.

    `weights` are fractions by variant, in order of name, adding up to 1; a variant that is not named gets
    none, and can still be pinned. `origin` is SPLIT when traffic.yaml says so, else DEFAULT (all to the
    baseline) or ONLY (there is one variant). `labels` are pairs of a label and its variant, none of them
    the name of a variant. `fallback` is empty, and `brownout` None, where there is none.
    """

    baseline: str
    weights: tuple[tuple[str, float], ...]
    sticky_parameter: str = DEFAULT_STICKY_PARAMETER
    sticky_metadata: str = DEFAULT_STICKY_METADATA
    origin: Reason = Reason.DEFAULT
    labels: tuple[tuple[str, str], ...] = ()
    fallback: str = ""
    brownout: Brownout | None = None

    def variant_of(self, label: str) -> str | None:
        """Return the variant that has a label; None when none has."""
        return dict(self.labels).get(label)

    @property
    def stand_ins(self) -> frozenset[str]:
        """Return the variants that may answer in the place of another, besides those with a share."""
        return frozenset({self.fallback, self.brownout.to if self.brownout else ""} - {""})

    def role_of(self, variant: str) -> Role:
        """Tell what `variant` is to the model under this plan."""
        return Role.BASELINE if variant == self.baseline else Role.CANDIDATE

    def weight_of(self, variant: str) -> float:
        """Return the fraction of the unpinned traffic that `variant` answers."""
        return dict(self.weights).get(variant, 0.0)


def parse_plan(text: str, path: Path) -> TrafficFile:
    """Read the text of a traffic.yaml.

    Raises:
        TrafficPlanError: it is not YAML, has an unknown or repeated key, or does not add up to 100 percent.
    """
    document = read_document(text, path)
    if document.split is not None:
        _check_split(document.split, path)
    return TrafficFile(
        path=path,
        baseline=document.baseline,
        split=document.split,
        sticky_parameter=document.sticky.parameter,
        sticky_metadata=document.sticky.metadata,
        labels=document.labels or {},
        fallback=document.fallback,
        brownout=Brownout(document.brownout.to, document.brownout.above) if document.brownout else None,
    )


def _check_split(split: Mapping[str, float], path: Path) -> None:
    total = sum(split.values())
    if abs(total - 100.0) > _TOLERANCE_PERCENT:
        listing = ", ".join(f"{variant}: {percent:g}" for variant, percent in split.items())
        raise TrafficPlanError(
            f"{path}: the percentages of 'split' ({listing}) add up to {total:g}; make them add up to 100."
        )


def resolve(traffic: TrafficFile | None, variants: Collection[str], default_baseline: str) -> Plan:
    """Make the plan for the variants that are there.

    Args:
        traffic: the model's traffic.yaml; None when it has none.
        variants: the names that may answer, at least one.
        default_baseline: the baseline when the file names none; one of `variants`.

    Raises:
        TrafficPlanError: the file names a variant that is not in `variants`.
    """
    origin = Reason.ONLY if len(variants) == 1 else Reason.DEFAULT
    if traffic is None:
        return Plan(default_baseline, ((default_baseline, 1.0),), origin=origin)
    for variant, key in traffic.named().items():
        _require_known(variant, key, traffic, variants)
    baseline = traffic.baseline or default_baseline
    weights: tuple[tuple[str, float], ...] = ((baseline, 1.0),)
    if traffic.split is not None:
        total = sum(traffic.split.values())
        weights = tuple((variant, percent / total) for variant, percent in sorted(traffic.split.items()))
        origin = Reason.SPLIT
    return Plan(
        baseline,
        weights,
        traffic.sticky_parameter,
        traffic.sticky_metadata,
        origin,
        # Who asks for a variant by its name gets that one, whatever labels there are.
        tuple((label, name) for label, name in sorted(traffic.labels.items()) if label not in variants),
        traffic.fallback or "",
        traffic.brownout,
    )


def _require_known(variant: str, key: str, traffic: TrafficFile, variants: Collection[str]) -> None:
    if variant not in variants:
        there = ", ".join(sorted(variants)) or "none"
        raise TrafficPlanError(
            f"{traffic.path}: '{key}' names the variant {variant!r}, which this model does not have ready "
            f"(ready: {there}); publish it first or correct the name."
        )


def restrict(plan: Plan, variants: Collection[str], default_baseline: str) -> Plan:
    """Return `plan` for fewer variants, as when one of them was removed or cannot be loaded.

    The lost share goes to the others in proportion, so by `choose` only the keys of the lost variants move;
    to the baseline alone when none of the plan's variants with a share is left.

    Args:
        plan: the plan as it was.
        variants: the names that may still answer, at least one.
        default_baseline: the baseline when the plan's own is lost; one of `variants`.
    """
    plan = _without_stand_ins(plan, variants)
    if plan.baseline in variants and all(variant in variants for variant, _ in plan.weights):
        return plan
    baseline = plan.baseline if plan.baseline in variants else default_baseline
    kept = [(variant, weight) for variant, weight in plan.weights if variant in variants]
    total = sum(weight for _, weight in kept)
    origin = plan.origin
    if origin is not Reason.SPLIT:
        origin = Reason.ONLY if len(variants) == 1 else Reason.DEFAULT
    if total > 0:
        weights = tuple((variant, weight / total) for variant, weight in kept)
    else:
        weights = ((baseline, 1.0),)
    return replace(plan, baseline=baseline, weights=weights, origin=origin)


def _without_stand_ins(plan: Plan, variants: Collection[str]) -> Plan:
    """Return `plan` without the stand-ins that cannot answer themselves."""
    if plan.stand_ins <= set(variants):
        return plan
    fallback = plan.fallback if plan.fallback in variants else ""
    brownout = plan.brownout if plan.brownout is not None and plan.brownout.to in variants else None
    return replace(plan, fallback=fallback, brownout=brownout)
