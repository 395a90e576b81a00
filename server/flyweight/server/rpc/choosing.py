"""Who answers a request: by name or label, by its sequence, by the traffic plan, or for want of room."""

from collections.abc import Callable

from flyweight.server.lifecycle.table import ServedModel
from flyweight.server.traffic import Choice, choose, pin
from flyweight.server.traffic.plan import Reason


def choose_variant(
    model: ServedModel,
    version: str,
    key: bytes | None,
    uniform: float,
    busy_share: Callable[[], float],
) -> Choice:
    """Choose the variant that answers.

    Args:
        model: what is asked.
        version: the request's model_version: a variant's name, else a label; empty leaves it to the plan.
        key: the caller's sticky key; None when it sent none.
        uniform: a random number in [0, 1).
        busy_share: tells how much of what the server may hold it does, 0 to 1.
    """
    plan = model.plan
    if version:
        return pin(version if version in model.variants else plan.variant_of(version) or version)
    choice = choose(plan, key, uniform)
    brownout = plan.brownout
    if (
        brownout is not None
        and busy_share() > brownout.above
        and choice.variant != brownout.to
        and brownout.to in model.variants
    ):
        return Choice(brownout.to, plan.role_of(brownout.to), Reason.BROWNOUT)
    return choice


def go_on_with(model: ServedModel, variant: str) -> Choice:
    """Return the choice for a sequence that is under way on a variant."""
    return Choice(variant, model.plan.role_of(variant), Reason.STICKY)


def fall_back(model: ServedModel, dead: str) -> Choice | None:
    """Return who answers for a variant whose process died; None when nobody is to."""
    name = model.plan.fallback
    if not name or name == dead or name not in model.variants:
        return None
    return Choice(name, model.plan.role_of(name), Reason.FALLBACK)
