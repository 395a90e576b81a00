"""The Pareto front: the variants that no other variant beats at everything."""

from collections.abc import Mapping, Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether `one` is nowhere worse than `other` and somewhere better; less is better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(costs: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Return the names that nobody dominates, by their first cost.

    Args:
        costs: by name, what each one costs on every axis; a quality is given with its sign turned.
    """
    kept = [name for name, cost in costs.items() if not any(dominates(o, cost) for o in costs.values())]
    return tuple(sorted(kept, key=lambda name: (*costs[name], name)))
