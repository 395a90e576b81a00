"""The plans in force: each model as it is to be served, and what its traffic.yaml came to."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from flyweight.server.lifecycle.desired import DesiredModel
from flyweight.server.lifecycle.observer import Observer
from flyweight.server.lifecycle.planning import Planned, keep_plan, plan_model
from flyweight.server.lifecycle.table import LoadedVariant, ServedModel
from flyweight.server.repository.snapshot import Fault
from flyweight.server.traffic.plan import Plan

_log = logging.getLogger(__name__)


class Plans:
    """Remembers the last good plan of each model. The board's, which calls it under its own lock."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._last_good: dict[str, Plan] = {}
        self._errors: dict[str, str] = {}

    def error(self, model: str) -> str:
        """Return why a model's traffic.yaml cannot be followed; empty when it can."""
        return self._errors.get(model, "")

    def keep(self, models: Collection[str]) -> None:
        """Forget all other models."""
        self._last_good = {model: plan for model, plan in self._last_good.items() if model in models}
        self._errors = {model: error for model, error in self._errors.items() if model in models}

    def serve(
        self,
        desired: DesiredModel | str,
        variants: Mapping[str, LoadedVariant],
        failed: Mapping[str, str],
        revision: str,
        before: ServedModel | None,
    ) -> ServedModel:
        """Return a model as it is to be served: the very object of before if nothing changed.

        Args:
            desired: what is asked of the model; its name alone when it is about to go.
            variants: those that can answer, at least one.
            failed: why others could not be loaded, by name.
            revision: the state of its traffic.yaml.
            before: as it was served up to now.
        """
        variants = MappingProxyType(variants)
        if isinstance(desired, str):
            plan = keep_plan(variants, self._last_good.get(desired))
            served = ServedModel(desired, variants, plan, (), revision)
        else:
            plan, faults = self._plan(desired, variants, failed, () if before is None else before.faults)
            served = ServedModel(desired.name, variants, plan, faults, revision, desired.traffic)
        if before is not None and _is_same(before, served):
            return before
        _tell(before, served)
        return served

    def _plan(
        self,
        desired: DesiredModel,
        variants: Mapping[str, LoadedVariant],
        failed: Mapping[str, str],
        known: Collection[Fault],
    ) -> tuple[Plan, tuple[Fault, ...]]:
        planned = plan_model(desired, variants, self._last_good.get(desired.name), failed)
        warn(fault for fault in planned.faults if fault.variant and fault not in known)
        if planned.last_good is not None:
            self._last_good[desired.name] = planned.last_good
        self._report_error(desired.name, planned.error)
        return planned.plan, _faults(desired, planned, failed)

    def _report_error(self, model: str, error: str) -> None:
        if error and self._errors.get(model) != error:
            _log.warning("%s The last good plan stays in force.", error)
            for observer in self._observers:
                observer.on_plan_error(model, error)
        self._errors[model] = error


def warn(faults: Iterable[Fault]) -> None:
    """Log what is wrong in the repository."""
    for fault in faults:
        _log.warning("%s: %s", fault.model, fault.reason)


def _faults(desired: DesiredModel, planned: Planned, failed: Mapping[str, str]) -> tuple[Fault, ...]:
    failures = {Fault(desired.name, variant, reason) for variant, reason in failed.items()}
    return tuple(sorted({*desired.faults, *failures, *planned.faults}))


def _is_same(a: ServedModel, b: ServedModel) -> bool:
    return (
        dict(a.variants) == dict(b.variants)
        and a.plan == b.plan
        and a.faults == b.faults
        and a.revision == b.revision
    )


def _tell(before: ServedModel | None, served: ServedModel) -> None:
    if before is None or before.plan != served.plan:
        shares = ", ".join(f"{name} {weight:.4g}" for name, weight in served.plan.weights)
        _log.info("%s: the traffic goes to %s.", served.name, shares)
