"""Which rank each layer gets: by the energy that must stay, or by a budget of multiply-adds for all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import PassError

Spectrum = NDArray[np.float64]
"""Energies (squared singular values) in falling order, shape (values,)."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to factorise a layer.

    Attributes:
        ranks: of the factors; empty for the layer as it is.
        macs: multiply-adds for one sample.
        error: energy lost, as a fraction of the whole; 0 for the layer as it is.
    """

    ranks: tuple[int, ...]
    macs: float
    error: float


def lost_energy(spectrum: Spectrum, rank: int) -> float:
    """Return the fraction of the energy beyond the first `rank` values.

    Eckart and Young 1936: the squared Frobenius error of the best approximation of that rank is the sum of
    the squared singular values it leaves out.
    """
    total = float(spectrum.sum())
    return float(spectrum[rank:].sum()) / total if total > 0 else 0.0


def rank_steps(largest: int, step: int) -> list[int]:
    """Return the multiples of `step` below `largest`: kernels are fastest at multiples of 16."""
    return list(range(step, largest, step))


def by_energy(ladders: Sequence[Sequence[Rung]], energy: float) -> list[Rung]:
    """Return, for each layer, the cheapest rung that loses at most 1 - `energy`."""
    allowed = 1.0 - energy + 1e-12
    return [
        min((rung for rung in ladder if rung.error <= allowed), key=lambda rung: rung.macs)
        for ladder in ladders
    ]


def by_budget(ladders: Sequence[Sequence[Rung]], budget: float) -> list[Rung]:
    """Return the rungs that need at most `budget` of the multiply-adds and whose errors add up to least.

    For a price p, each layer takes the rung of least error + p x macs; the lowest price that fits the budget
    is found by bisection (Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of
    quantizers": optimal among the rungs on the convex hull).

    Raises:
        PassError: the cheapest rungs together still cost more.
    """
    whole = sum(max(rung.macs for rung in ladder) for ladder in ladders)
    least = sum(min(rung.macs for rung in ladder) for ladder in ladders)
    if least > budget * whole:
        raise PassError(
            f"No ranks bring the layers down to {budget:.0%} of their multiply-adds; "
            f"the least is {least / whole:.0%}."
        )
    low, high = 0.0, 1.0
    while sum(rung.macs for rung in at_price(ladders, high / whole)) > budget * whole:
        low, high = high, high * 4
    for _ in range(60):
        middle = (low + high) / 2
        fits = sum(rung.macs for rung in at_price(ladders, middle / whole)) <= budget * whole
        low, high = (low, middle) if fits else (middle, high)
    return _spend_rest(ladders, at_price(ladders, high / whole), budget * whole)


def _spend_rest(ladders: Sequence[Sequence[Rung]], chosen: list[Rung], most: float) -> list[Rung]:
    """Return the rungs with the macs that one price leaves over spent where each spares the most error."""
    chosen = list(chosen)
    while True:
        left = most - sum(rung.macs for rung in chosen)
        better = [
            ((chosen[index].error - rung.error) / max(rung.macs - chosen[index].macs, 1e-9), index, rung)
            for index, ladder in enumerate(ladders)
            for rung in ladder
            if rung.error < chosen[index].error and rung.macs - chosen[index].macs <= left
        ]
        if not better:
            return chosen
        _, index, rung = max(better, key=lambda entry: entry[0])
        chosen[index] = rung


def at_price(ladders: Sequence[Sequence[Rung]], price: float) -> list[Rung]:
    """Return, for each layer, the rung of the least error + price x macs; of equal ones the cheaper."""
    return [min(ladder, key=lambda rung: (rung.error + price * rung.macs, rung.macs)) for ladder in ladders]
