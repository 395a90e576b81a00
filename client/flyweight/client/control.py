"""The calls of flyweight's control service, described without doing them; see `calls`."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from flyweight.client.calls import CONTROL_SERVICE, Call
from flyweight.client.results import TrafficPlan, TrafficState
from flyweight.protos.control.v1 import control_pb2 as control

T = TypeVar("T")


def get_traffic(model: str) -> Call[TrafficState]:
    """Ask for the plan that is in force."""
    request, decode = control.GetTrafficRequest(model=model), control.GetTrafficResponse.FromString
    return _call("GetTraffic", request, decode, model)


def set_traffic(model: str, plan: TrafficPlan, revision: str) -> Call[TrafficState]:
    """Ask to replace the plan, if it is still the one of `revision`; empty replaces any."""
    request = control.SetTrafficRequest(model=model, plan=_message(plan), expected_revision=revision)
    return _call("SetTraffic", request, control.SetTrafficResponse.FromString, model)


def promote(model: str, variant: str) -> Call[TrafficState]:
    """Ask to make a variant the baseline, with all the traffic."""
    request = control.PromoteRequest(model=model, variant=variant)
    call = _call("Promote", request, control.PromoteResponse.FromString, model)
    return replace(call, subject=f"model {model!r}, variant {variant!r}")


def rollback(model: str) -> Call[TrafficState]:
    """Ask to undo the last promotion."""
    request, decode = control.RollbackRequest(model=model), control.RollbackResponse.FromString
    return _call("Rollback", request, decode, model)


def _call(method: str, request: Any, decode: Any, model: str) -> Call[TrafficState]:
    def parse(response: Any) -> TrafficState:
        plan = _plan(response.plan)
        if not isinstance(response, control.GetTrafficResponse):
            # A change that is answered stands in the repository; a fault would have been an error.
            return TrafficState(model, plan, response.revision, "", None)
        written = _plan(response.written) if response.HasField("written") else None
        return TrafficState(model, plan, response.revision, response.fault, written)

    return Call(method, request, decode, parse, f"model {model!r}", service=CONTROL_SERVICE)


def _message(plan: TrafficPlan) -> control.TrafficPlan:
    return control.TrafficPlan(
        baseline=plan.baseline,
        shares=[control.TrafficShare(variant=name, percent=share) for name, share in plan.split.items()],
        sticky=control.StickyKey(parameter=plan.sticky_parameter, metadata=plan.sticky_metadata),
        labels=dict(plan.labels),
        fallback_variant=plan.fallback,
        overflow_variant=plan.overflow,
        overflow_above=plan.overflow_above,
    )


def _plan(message: control.TrafficPlan) -> TrafficPlan:
    return TrafficPlan(
        baseline=message.baseline,
        split=MappingProxyType({share.variant: share.percent for share in message.shares}),
        labels=MappingProxyType(dict(sorted(message.labels.items()))),
        fallback=message.fallback_variant,
        overflow=message.overflow_variant,
        overflow_above=message.overflow_above,
        sticky_parameter=message.sticky.parameter,
        sticky_metadata=message.sticky.metadata,
    )
