"""How much each layer gives, so that together they save what is asked and lose least: pure decisions.

Every layer has a curve: what it could save, and the harm that was measured when it alone did. The choice that
minimises the sum of harms for a given sum of savings is found on the lower convex hulls of the curves, by
always taking the step of least harm for what it saves (Shoham and Gersho 1988, "Efficient Bit Allocation for
an Arbitrary Set of Quantizers": the Lagrangian solution). That layers differ in sensitivity and deserve
different ratios is Han et al. 2015, "Learning both Weights and Connections", section 3.1 and figure 6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import isfinite
from typing import Final

_HALVINGS: Final = 12
"""Of the search for the level that meets the budget: finer than one channel in four thousand."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing a layer could do.

    Attributes:
        ratio: the fraction of its weights or channels that goes.
        saved: what that saves, in the unit of the budget: weights, parameters, multiply-adds.
        harm: what it costs, measured with all other layers as they were.
    """

    ratio: float
    saved: float
    harm: float


def allocate(
    curves: Mapping[str, Sequence[Point]], wanted: float, *, exactly: bool = False
) -> dict[str, Point]:
    """Return what each layer should do so that at least `wanted` is saved, if the curves reach as far.

    Args:
        curves: for each layer its points; doing nothing (0, 0, 0) belongs to every layer and may be left out.
        wanted: the sum of savings to reach.
        exactly: let the last step be taken in part, on the line between two points, so that `wanted` is met
            and not passed. Weights can be split in this way; channels, in steps of 8 or 16, cannot.
    """
    hulls = {name: _lower_hull(points) for name, points in curves.items()}
    chosen, position = {name: hull[0] for name, hull in hulls.items()}, dict.fromkeys(hulls, 0)
    steps = [(_price(hull[0], hull[1]), name) for name, hull in hulls.items() if len(hull) > 1]
    heapify(steps)
    saved = 0.0
    while steps and saved < wanted:
        _, name = heappop(steps)
        hull = hulls[name]
        before, after = hull[position[name]], hull[position[name] + 1]
        missing = wanted - saved
        if exactly and after.saved - before.saved > missing:
            chosen[name] = _between(before, after, missing / (after.saved - before.saved))
            break
        chosen[name] = after
        saved += after.saved - before.saved
        position[name] += 1
        if position[name] + 1 < len(hull):
            heappush(steps, (_price(after, hull[position[name] + 1]), name))
    return chosen


def _lower_hull(points: Sequence[Point]) -> list[Point]:
    """Return the points that are best for some price of what is saved, beginning at nothing.

    Harm below zero, which noise can measure, counts as none: it would else buy any other layer's ruin. What
    broke the outputs is no choice.
    """
    usable = [Point(p.ratio, p.saved, max(p.harm, 0.0)) for p in points if p.saved > 0 and isfinite(p.harm)]
    hull = [Point(0.0, 0.0, 0.0)]
    for point in sorted(usable, key=lambda p: (p.saved, p.harm)):
        if point.saved == hull[-1].saved:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    assert all(a.saved < b.saved for a, b in pairwise(hull)), "every step saves something"
    return hull


def _price(before: Point, after: Point) -> float:
    return (after.harm - before.harm) / (after.saved - before.saved)


def _between(before: Point, after: Point, share: float) -> Point:
    return Point(
        before.ratio + share * (after.ratio - before.ratio),
        before.saved + share * (after.saved - before.saved),
        before.harm + share * (after.harm - before.harm),
    )


def first_within(
    plan_at: Callable[[float], dict[str, int]], cost: Callable[[Mapping[str, int]], float], budget: float
) -> dict[str, int]:
    """Return the plan at the lowest level, 0 to 1, whose cost is within the budget; the last, if none is.

    Costs fall with the level, so that halving finds it.
    """
    low, high = 0.0, 1.0
    if cost(plan_at(low)) <= budget:
        return plan_at(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if cost(plan_at(middle)) <= budget:
            high = middle
        else:
            low = middle
    return plan_at(high)
