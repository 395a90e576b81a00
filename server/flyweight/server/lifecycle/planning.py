"""The plan that is in force: what traffic.yaml asks for, held against the variants that are ready. Pure.

A plan that cannot be followed leaves the last good one in force. A variant of the plan that is not ready, or
that takes and gives other tensors than the baseline, lends its share to the others until it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flyweight.server.errors import TrafficPlanError
from flyweight.server.lifecycle.desired import DesiredModel, is_number
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.repository.snapshot import Fault
from flyweight.server.runtime.signature import FREE, Signature, TensorSpec
from flyweight.server.traffic.plan import Plan, resolve, restrict

USUAL_BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan in force, and what is wrong.

    `last_good` is the last whole plan that could be resolved, to be handed in the next time; `error` is why
    the traffic.yaml cannot be followed, or empty.
    """

    plan: Plan
    last_good: Plan | None
    faults: tuple[Fault, ...]
    error: str = ""


def plan_model(
    desired: DesiredModel,
    ready: Mapping[str, LoadedVariant],
    last_good: Plan | None,
    failed: Collection[str] = (),
) -> Planned:
    """Return the plan for a model with at least one ready variant.

    Args:
        desired: what the repository asks of the model.
        ready: the variants that can answer, by name.
        last_good: the last plan that could be resolved, before it was restricted; None at the start.
        failed: the variants that were tried and could not be loaded. One that is wanted and was not tried yet
            is on its way, which is no fault.
    """
    on_their_way = set(desired.wanted) - set(failed)
    whole, error = _resolve(desired, ready, last_good)
    faults = [Fault(desired.name, "", error)] if error else []
    fallback = default_baseline(ready)
    plan = restrict(whole, ready, fallback)
    strangers = _strangers(plan, ready)
    if strangers:
        plan = restrict(plan, set(ready) - set(strangers), plan.baseline)
        faults += [Fault(desired.name, name, reason) for name, reason in strangers.items()]
    faults += [
        Fault(
            desired.name,
            name,
            f"The variant {name!r} is in the traffic plan and is not ready; the others answer.",
        )
        for name in sorted(_needed(whole))
        if name not in ready and name not in on_their_way
    ]
    return Planned(plan, last_good if error else whole, tuple(faults), error)


def keep_plan(ready: Mapping[str, LoadedVariant], last_good: Plan | None) -> Plan:
    """Return the plan for a model that is about to go: as it was, for the variants that are left."""
    baseline = default_baseline(ready)
    return restrict(last_good or resolve(None, ready, baseline), ready, baseline)


def default_baseline(ready: Mapping[str, LoadedVariant]) -> str:
    """Return the baseline when nobody names one: a rule that every replica applies to the same files.

    The variant named "baseline"; else the oldest whose manifest names no parent; else the highest number;
    else the first by name.
    """
    if USUAL_BASELINE in ready:
        return USUAL_BASELINE
    roots = [
        (loaded.manifest.created, name)
        for name, loaded in ready.items()
        if loaded.manifest is not None and not loaded.manifest.lineage.parent
    ]
    if roots:
        return min(roots)[1]
    numbers = [name for name in ready if is_number(name)]
    return max(numbers, key=int) if numbers else min(ready)


def usual_baseline(names: Collection[str], ready: Mapping[str, LoadedVariant]) -> str:
    """Return the baseline when nobody names one, counting variants that are still on their way."""
    return USUAL_BASELINE if USUAL_BASELINE in names else default_baseline(ready)


def _resolve(
    desired: DesiredModel, ready: Mapping[str, LoadedVariant], last_good: Plan | None
) -> tuple[Plan, str]:
    # What is on disk counts as there, so that a plan is not called wrong while its variants are loading.
    names = {*desired.wanted, *ready}
    baseline = usual_baseline(names, ready)
    error = desired.traffic_error
    if not error:
        try:
            return resolve(desired.traffic, names, baseline), ""
        except TrafficPlanError as unresolved:
            error = str(unresolved)
    return last_good or resolve(None, names, baseline), error


def _strangers(plan: Plan, ready: Mapping[str, LoadedVariant]) -> dict[str, str]:
    """Return the variants of the plan that cannot stand in for the baseline, with the reason."""
    mine = ready[plan.baseline].signature
    return {
        name: (
            f"The variant {name!r} gets no share of the traffic, for its {difference} than the baseline's; "
            "it answers only those who ask for it by name."
        )
        for name in sorted(_needed(plan) - {plan.baseline})
        if (difference := _difference(mine, ready[name].signature))
    }


def _needed(plan: Plan) -> frozenset[str]:
    """Return the variants that a plan sends requests to, now or when another cannot answer."""
    return plan.stand_ins | {name for name, weight in plan.weights if weight > 0}


def _difference(mine: Signature, theirs: Signature) -> str:
    """Return in what a candidate's signature keeps it from answering the baseline's requests, or nothing."""
    required = [spec for spec in theirs.inputs if not spec.optional]
    if not _covers(mine.inputs, theirs.inputs) or {s.name for s in required} - {s.name for s in mine.inputs}:
        return "inputs are other"
    return "" if _covers(mine.outputs, theirs.outputs) else "outputs are other"


def _covers(mine: Collection[TensorSpec], theirs: Collection[TensorSpec]) -> bool:
    by_name = {spec.name: spec for spec in theirs}
    return all(spec.name in by_name and _is_alike(spec, by_name[spec.name]) for spec in mine)


def _is_alike(mine: TensorSpec, theirs: TensorSpec) -> bool:
    return (
        mine.datatype == theirs.datatype
        and len(mine.shape) == len(theirs.shape)
        and all(FREE in (a, b) or a == b for a, b in zip(mine.shape, theirs.shape, strict=True))
    )
