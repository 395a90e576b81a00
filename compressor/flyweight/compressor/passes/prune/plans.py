"""How many channels each layer keeps, decided by one ranking of all or by measured sensitivity."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from flyweight.compressor.foreign import quiet
from flyweight.compressor.passes.prune.allocation import Point, allocate, first_within
from flyweight.compressor.passes.prune.channels import CutSettings, Prepared, cut, kept_of, uniform_plan
from flyweight.compressor.passes.prune.costs import Costs
from flyweight.compressor.passes.prune.coupling import Importance

if TYPE_CHECKING:
    from torch import nn

    from flyweight.compressor.context import Context

LEAST_KEPT: Final = 0.1
"""No layer loses more than nine tenths of its channels: a ranking by magnitude would empty whole layers."""

MEASURED: Final = (0.25, 0.5, 0.75)
"""The fractions of each layer's channels whose removal is measured; harm rises steeply beyond the last."""


def ranked_plan(
    prepared: Prepared, settings: CutSettings, importance: Importance, costs: Costs
) -> dict[str, int]:
    """Return the plan of one ranking across all layers, with the multiply-adds of a uniform cut.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3: all channels of the
    network are ranked together. How many go is decided by multiply-adds: a ranking likes to take the
    channels of layers that cost little.
    """
    with quiet():
        ranking = {
            group.root: prepared.couplings.scores(group, importance).numpy().astype(np.float64)
            for group in prepared.groups
        }
    everything = np.sort(np.concatenate(list(ranking.values())))

    def plan_at(level: float) -> dict[str, int]:
        threshold = everything[min(int(level * everything.size), everything.size - 1)]
        plan = {}
        for group in prepared.groups:
            keep = float((ranking[group.root] >= threshold).mean())
            plan[group.root] = kept_of(group, CutSettings(max(keep, LEAST_KEPT), settings.round_to))
        return plan

    return first_within(plan_at, costs.of, costs.of(uniform_plan(prepared.groups, settings)))


def sensitive_plan(
    prepared: Prepared,
    settings: CutSettings,
    importance: Importance,
    harm: Callable[["nn.Module"], float],
    context: "Context",
) -> dict[str, int]:
    """Return the plan of least measured harm with the multiply-adds of a uniform cut.

    Each group of coupled channels is cut alone, by several fractions, and the harm to the answers measured;
    `allocate` chooses. Savings of neighbouring layers multiply where the choice adds them up, so more is
    asked for until the multiply-adds fit.
    """
    costs = Costs(prepared.couplings)
    whole = costs.of({})
    options: dict[str, list[tuple[int, Point]]] = {}
    for done, group in enumerate(prepared.groups):
        context.check_time()
        context.progress("measuring layers", done, len(prepared.groups))
        options[group.root] = []
        for ratio in MEASURED:
            kept = kept_of(group, CutSettings(1.0 - ratio, settings.round_to))
            if kept == group.width or any(kept == known for known, _ in options[group.root]):
                continue
            plan = {group.root: kept}
            with prepared.couplings.trial(), quiet():
                cut(prepared, plan, importance)
                lost = harm(prepared.couplings.module)
            point = Point(1.0 - kept / group.width, whole - costs.of(plan), lost)
            options[group.root].append((kept, point))
    context.progress("measuring layers", len(prepared.groups), len(prepared.groups))
    curves = {root: [point for _, point in points] for root, points in options.items()}
    most = sum(max((point.saved for point in points), default=0.0) for points in curves.values())

    def plan_at(level: float) -> dict[str, int]:
        chosen = allocate(curves, level * most)
        return {
            group.root: round(group.width * (1.0 - chosen[group.root].ratio)) for group in prepared.groups
        }

    return first_within(plan_at, costs.of, costs.of(uniform_plan(prepared.groups, settings)))
