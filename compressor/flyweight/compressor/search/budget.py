"""Budgets: what a variant may cost and must keep, as a user writes it.

    latency<=50%, size<=25%, accuracy>=-0.5pt

An axis of cost has an upper bound, in percent of the baseline or in a unit of its own. A metric of quality
has a lower bound: points of difference to the baseline (`-0.5pt`), percent of the baseline's (`99%`), or the
figure itself (`0.9`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.gate import Limits
from flyweight.compressor.search.figures import COSTS, Figures

METRICS: Final = ("quality", "accuracy", "f1", "r2", "agreement")
"""`quality` is whichever of the others decides for the user's data."""

_BYTES: Final = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNTS: Final = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}
_UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    "size": _BYTES,
    "memory": _BYTES,
    "macs": _COUNTS,
    "parameters": _COUNTS,
}
# A strict bound is taken for the one that includes it: measurements do not tell them apart.
_TERM: Final = re.compile(r"\s*(\w+)\s*(<=|>=|=<|=>|<|>|≤|≥)\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*(%|[A-Za-z]*)\s*")
_EXAMPLE: Final = 'write, for example, "latency<=50%, size<=25%, accuracy>=-0.5pt"'
# What a user gives up for a gain: a point of quality is minded about as much as ten percent of a cost.
_POINTS_TO_COSTS: Final = 10.0
_EPSILON: Final = 1e-9
_MEASURED_LAST: Final = ("latency", "memory")
# Of a bound on what a variant does not have: as if it were twice as large as asked.
_UNKNOWN_MISS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Bound:
    """One term of a budget.

    Attributes:
        axis: what is bounded.
        value: the bound; a fraction of the baseline's figure, a difference to it, or the figure itself.
        relation: which of the three.
        text: as the user wrote it.
    """

    axis: str
    value: float
    relation: str
    text: str

    def target(self, baseline: Figures) -> float | None:
        """Return the bound in the axis's own unit; None where the baseline has no such figure."""
        if self.relation == "itself":
            return self.value
        base = baseline.of(self.axis)
        if base is None:
            return None
        return base * self.value if self.relation == "fraction" else base + self.value

    def miss(self, found: Figures, baseline: Figures) -> float | None:
        """Return by how much the bound is missed, at most 0 where it is met; None where it cannot be told.

        Of a cost the miss is a fraction of the bound, of a quality ten times the difference.
        """
        value, target = found.of(self.axis), self.target(baseline)
        if value is None or target is None:
            return None
        if self.axis in COSTS:
            return (value - target) / max(target, _EPSILON)
        return (target - value - _EPSILON) * _POINTS_TO_COSTS

    def describe(self, found: Figures, baseline: Figures) -> str:
        """Return how far a variant is from the bound, as part of a sentence."""
        value, target = found.of(self.axis), self.target(baseline)
        if value is None or target is None:
            return f"{self.axis} was not measured"
        name = (found.metric if self.axis == "quality" else self.axis).replace("f1", "F1").replace("r2", "R2")
        if self.relation == "fraction" and self.axis in COSTS:
            base = baseline.of(self.axis) or 1.0
            return f"{name} is {value / base:.1%} of the baseline's where {self.value:.1%} is asked"
        return f"{name} is {_shown(self.axis, value)} where {_shown(self.axis, target)} is asked"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a user can afford and will not give up; all bounds must be met."""

    bounds: tuple[Bound, ...]

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read a budget.

        Raises:
            RecipeError: an axis is unknown or named twice, a bound is missing, impossible, or of a wrong
                direction or unit.
        """
        terms = [term for term in re.split("[,;]", text) if term.strip()]
        if not terms:
            raise RecipeError(f"The budget is empty; {_EXAMPLE}.")
        bounds = tuple(_parse(term) for term in terms)
        for place, bound in enumerate(bounds):
            if any(bound.axis == earlier.axis for earlier in bounds[:place]):
                raise RecipeError(f"The budget bounds {bound.axis} twice; keep one of the two.")
        return cls(bounds)

    def completed(self, metric: str, max_drop: float | None = None) -> "Budget":
        """Return the budget with a bound on quality: its own, or else the one that the gate has.

        Args:
            metric: that decides.
            max_drop: of it, relative to the baseline's; None takes the gate's default.
        """
        if any(bound.axis in METRICS for bound in self.bounds):
            return self
        kept = 1 - Limits(max_drop=max_drop).drop(metric, 1.0)
        return Budget((*self.bounds, Bound("quality", kept, "fraction", f"quality>={100 * kept:g}%")))

    def misses(self, found: Figures, baseline: Figures) -> dict[str, float]:
        """Return by how much each bound is missed, by axis; those that cannot be told yet are left out.

        What is measured last may still be told. Anything else that is not known cannot be, and is missed.
        """
        told = {bound.axis: bound.miss(found, baseline) for bound in self.bounds}
        return {
            axis: _UNKNOWN_MISS if miss is None else miss
            for axis, miss in told.items()
            if miss is not None or axis not in _MEASURED_LAST
        }

    def check_measurable(self, baseline: Figures) -> None:
        """Refuse bounds on what this model and these data do not have.

        Raises:
            RecipeError: accuracy is asked without labels, or macs where the shapes do not tell.
        """
        for bound in self.bounds:
            if baseline.of(bound.axis) is None:
                known = [axis for axis in (*COSTS, *METRICS) if baseline.of(axis) is not None]
                raise RecipeError(
                    f"The budget bounds {bound.axis}, which this model with these data does not have; "
                    f"it may bound {', '.join(known)}."
                )

    def shortfall(self, found: Figures, baseline: Figures) -> str | None:
        """Return in words which bounds are missed and by how much; None if all are met."""
        misses = self.misses(found, baseline)
        parts = [b.describe(found, baseline) for b in self.bounds if misses.get(b.axis, 0.0) > 0]
        return "; ".join(parts) or None

    def limits(self, baseline: Figures) -> Limits:
        """Return what the gate may let pass: its own care, and the budget's where that is stricter or wider.

        The gate looks at every batch size and the budget at the smallest, so a bound on latency only loosens
        it; whether the bound itself is met is the search's to say.
        """
        drop, slowdown, ratio = None, 1.1, 1.0
        for bound in self.bounds:
            target, base = bound.target(baseline), baseline.of(bound.axis)
            if target is None or base is None:
                continue
            if bound.axis in {"quality", baseline.metric}:
                drop = max(base - target, 0.0) / max(abs(base), _EPSILON)
            elif bound.axis == "latency":
                slowdown = max(slowdown, target / base)
            elif bound.axis == "size":
                ratio = target / base
        return Limits(max_drop=drop, max_slowdown=slowdown, max_bytes_ratio=ratio)

    def __str__(self) -> str:
        return ", ".join(bound.text for bound in self.bounds)


def _parse(term: str) -> Bound:
    said = " ".join(term.split())
    axis = (re.match(r"\s*(\w*)", term) or [""])[0].strip()
    if axis not in {*COSTS, *METRICS}:
        raise RecipeError(
            f"The budget has no axis {axis or said!r}; it may bound {', '.join((*COSTS, *METRICS))}."
        )
    match = _TERM.fullmatch(term)
    if match is None:
        raise RecipeError(f"The term {said!r} of the budget has no bound that is a number; {_EXAMPLE}.")
    wanted = "<=" if axis in COSTS else ">="
    if wanted[0] != {"≤": "<", "≥": ">"}.get(match[2], match[2].strip("=")):
        raise RecipeError(f"The budget asks for {said!r}; {axis} is bounded with {wanted}.")
    number, unit = float(match[3]), match[4]
    bound = _cost(axis, number, unit, said) if axis in COSTS else _quality(axis, number, unit, said)
    if axis in COSTS and bound.value <= 0:
        raise RecipeError(f"The budget asks for {said!r}, which nothing can meet; give a bound above 0.")
    return bound


def _cost(axis: str, number: float, unit: str, said: str) -> Bound:
    if unit == "%":
        return Bound(axis, number / 100, "fraction", said)
    units = {name.lower(): factor for name, factor in _UNITS[axis].items()}
    if unit.lower() not in units:
        listed = ", ".join(name or "a plain number" for name in _UNITS[axis])
        given = f"the unit {unit!r}" if unit else "no unit"
        raise RecipeError(
            f"The term {said!r} of the budget has {given}; {axis} takes %, {listed}, such as {axis}<=50%."
        )
    return Bound(axis, number * units[unit.lower()], "itself", said)


def _quality(axis: str, number: float, unit: str, said: str) -> Bound:
    if unit in {"pt", "pts"}:
        if not -100 < number < 100:
            raise RecipeError(f"The budget asks for {said!r}, which nothing can meet; there are 100 points.")
        return Bound(axis, number / 100, "difference", said)
    if unit == "%":
        if -100 < number < 0:
            raise RecipeError(
                f"The term {said!r} of the budget is below 0 %: write {axis}>={number:g}pt for points of "
                f"difference, or {axis}>={100 + number:g}% for a share of the baseline's."
            )
        if number <= 0:
            raise RecipeError(f"The term {said!r} of the budget allows anything; give percent above 0.")
        return Bound(axis, number / 100, "fraction", said)
    if unit:
        raise RecipeError(
            f"The term {said!r} of the budget has the unit {unit!r}; {axis} takes pt, % or none."
        )
    if number <= 0 and axis != "r2":
        raise RecipeError(
            f"The budget asks for {said!r}, and 0 is the least there is; write {number:g}pt for points of "
            "difference to the baseline."
        )
    if number > 1:
        raise RecipeError(
            f"The budget asks for {said!r}, and 1 is perfect; write {number:g}% of the baseline's."
        )
    return Bound(axis, number, "itself", said)


def _shown(axis: str, value: float) -> str:
    if axis == "latency":
        return f"{value * 1e3:.3g} ms"
    if axis in {"size", "memory"}:
        return f"{value / 1e6:.3g} MB" if value >= 1e5 else f"{value:.0f} bytes"
    return f"{value:.3g}" if axis in COSTS else f"{value:.4f}"
