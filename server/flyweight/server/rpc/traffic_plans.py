"""Traffic plans between the control service's messages and our own types. Pure."""

from pathlib import Path
from typing import Final

from flyweight.protos.control.v1.control_pb2 import StickyKey, TrafficPlan, TrafficShare
from flyweight.server.errors import InvalidRequest, Unsupported
from flyweight.server.traffic import Brownout, Plan, TrafficFile
from flyweight.server.traffic.document import DEFAULT_STICKY_METADATA, DEFAULT_STICKY_PARAMETER

# What a message says stands in no file yet.
_NOWHERE: Final = Path("The plan")


def plan_message(plan: Plan) -> TrafficPlan:
    """Return a plan as the control service tells it."""
    message = TrafficPlan(
        baseline=plan.baseline,
        shares=[TrafficShare(variant=variant, percent=weight * 100) for variant, weight in plan.weights],
        sticky=StickyKey(parameter=plan.sticky_parameter, metadata=plan.sticky_metadata),
        labels=dict(plan.labels),
        fallback_variant=plan.fallback,
    )
    if plan.brownout is not None:
        message.overflow_variant, message.overflow_above = plan.brownout.to, plan.brownout.above
    return message


def written_message(traffic: TrafficFile | None) -> TrafficPlan:
    """Return what stands in a traffic.yaml, whoever is ready; nothing when there is no file."""
    if traffic is None:
        return TrafficPlan()
    message = TrafficPlan(
        baseline=traffic.baseline or "",
        shares=[
            TrafficShare(variant=name, percent=percent) for name, percent in (traffic.split or {}).items()
        ],
        sticky=StickyKey(parameter=traffic.sticky_parameter, metadata=traffic.sticky_metadata),
        labels=dict(traffic.labels),
        fallback_variant=traffic.fallback or "",
    )
    if traffic.brownout is not None:
        message.overflow_variant, message.overflow_above = traffic.brownout.to, traffic.brownout.above
    return message


def traffic_file(message: TrafficPlan) -> TrafficFile:
    """Return what stands in the traffic.yaml that a plan asks for.

    Raises:
        InvalidRequest: the plan names a variant twice.
        Unsupported: it asks for shadows.
    """
    if message.shadows:
        raise Unsupported("The plan asks for shadows, and answers are not compared yet; leave them out.")
    split = {share.variant: share.percent for share in message.shares}
    if len(split) != len(message.shares):
        raise InvalidRequest("The plan gives a variant two shares; add them up.")
    brownout = None
    if message.overflow_variant:
        brownout = Brownout(message.overflow_variant, message.overflow_above)
    return TrafficFile(
        path=_NOWHERE,
        baseline=message.baseline or None,
        split=split or None,
        sticky_parameter=message.sticky.parameter or DEFAULT_STICKY_PARAMETER,
        sticky_metadata=message.sticky.metadata or DEFAULT_STICKY_METADATA,
        labels=dict(message.labels),
        fallback=message.fallback_variant or None,
        brownout=brownout,
    )
