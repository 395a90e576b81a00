"""Who answers a request: the plan that traffic.yaml makes, and the choice that follows from it. Pure."""

from flyweight.server.traffic.choose import Choice, choose, pin, sticky_key
from flyweight.server.traffic.plan import (
    Brownout,
    Plan,
    Reason,
    Role,
    TrafficFile,
    parse_plan,
    resolve,
    restrict,
)

__all__ = [
    "Brownout",
    "Choice",
    "Plan",
    "Reason",
    "Role",
    "TrafficFile",
    "choose",
    "parse_plan",
    "pin",
    "resolve",
    "restrict",
    "sticky_key",
]
