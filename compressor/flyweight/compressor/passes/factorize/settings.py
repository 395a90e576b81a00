"""What the passes that factorise may be told, and the sentences they tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Pass
from flyweight.compressor.passes.factorize.ladder import Rung, by_budget, by_energy
from flyweight.compressor.passes.factorize.layers import Layer, Scheme, ladder_of

CALIBRATION_ROWS: Final = 256
"""Samples whose answers are looked at: a layer has hundreds of places in each."""

NOTHING_TO_GAIN: Final = "No layer is cheaper as a product of thinner ones at the precision asked for."


@dataclass(frozen=True, slots=True)
class Factorization(Pass):
    """What the passes have in common, whatever form of model they work on.

    Attributes:
        energy: fraction of a layer's energy that stays; used where there is no budget.
        budget: multiply-adds of all layers together, as a fraction of what they are; None goes by energy.
        scheme: of kernels larger than 1 x 1.
        aware: whether layers' answers count, or their weights alone.
        round_to: ranks are multiples of this.
    """

    energy: float = 0.95
    budget: float | None = None
    scheme: Scheme = Scheme.CHANNEL
    aware: bool = True
    round_to: int = 16

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a value is out of its range.
        """
        if not 0.0 < self.energy <= 1.0:
            raise RecipeError(f"The energy to keep is above 0 and at most 1, and {self.energy} is not.")
        if self.budget is not None and not 0.0 < self.budget <= 1.0:
            raise RecipeError(f"The budget is a fraction above 0 and at most 1, and {self.budget} is not.")
        if self.round_to < 1:
            raise RecipeError(f"Ranks are multiples of 1 or more, and {self.round_to} is not.")

    def choose(self, layers: Sequence[Layer], between: Callable[[], None]) -> list[Rung]:
        """Return a rung for each layer; `between` is called before each is looked at.

        Raises:
            PassError: the budget cannot be met.
        """
        ladders = list[list[Rung]]()
        for layer in layers:
            between()
            ladders.append(ladder_of(layer, self.scheme, self.round_to))
        if self.budget is None:
            return by_energy(ladders, self.energy)
        return by_budget(ladders, self.budget)


def describe(layers: Sequence[Layer], rungs: Sequence[Rung]) -> str:
    """Return a sentence for the report."""
    changed = [(layer, rung) for layer, rung in zip(layers, rungs, strict=True) if rung.ranks]
    before, after = sum(layer.macs for layer in layers), sum(rung.macs for rung in rungs)
    layer, rung = max(changed, key=lambda pair: pair[0].macs - pair[1].macs)
    full = min(layer.weight.shape[0], layer.weight[0].size)
    worst = max(rung.error for _, rung in changed)
    return (
        f"{len(changed)} of {len(layers)} layers were factorised (most was saved in {layer.name}, "
        f"rank {' and '.join(str(rank) for rank in rung.ranks)} of {full}); their multiply-adds went to "
        f"{after / before:.0%}, and no layer lost more than {worst:.1%} of its energy."
    )
