"""Which weights go, by every rule there is: pure, for torch modules and ONNX graphs alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.prune.allocation import Point, allocate
from flyweight.compressor.passes.prune.masks import (
    Mask,
    Scores,
    keep_above,
    keep_largest,
    keep_largest_together,
    keep_n_of_m,
    lamp_scores,
    parse_pattern,
)
from flyweight.compressor.passes.prune.schedule import require_ratio
from flyweight.compressor.passes.prune.scope import Scope

MEASURED_RATIOS: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""At which each layer's harm is measured: closer where it grows fast."""


@dataclass(frozen=True, slots=True)
class Target:
    """How sparse the weights are to become; the first that is given decides: pattern, threshold, ratio.

    Attributes:
        ratio: fraction of the weights that goes.
        threshold: weights of a score up to this go.
        pattern: N:M, N of every M neighbouring weights stay.
        scope: among whom the smallest are chosen by ratio.
    """

    ratio: float
    threshold: float | None
    pattern: str | None
    scope: Scope

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: one is out of its range.
        """
        require_ratio(self.ratio)
        if self.pattern is not None:
            parse_pattern(self.pattern)
        if self.threshold is not None and not self.threshold >= 0:
            raise RecipeError(f"A pruning threshold is at least 0, and {self.threshold} is not.")
        if self.pattern is not None and self.threshold is not None:
            raise RecipeError("Give a threshold or a pattern for the weights that stay, not both.")

    def part(self, part: float) -> "Target":
        """Return a target on the way to this one, with a part of the ratio or threshold, from 0 to 1."""
        threshold = None if self.threshold is None else part * self.threshold
        return Target(part * self.ratio, threshold, self.pattern, self.scope)


Curves = Callable[[], Mapping[str, list[Point]]]
"""Measures each layer's harm at MEASURED_RATIOS; what is saved is counted in weights."""


def choose(
    scores: Mapping[str, Scores], axes: Mapping[str, int], target: Target, curves: Curves
) -> dict[str, Mask]:
    """Return a mask for each weight.

    Args:
        scores: of every weight, of its shape.
        axes: of the input channels, for patterns.
        target: how sparse they become.
        curves: called only where the scope is sensitivity.
    """
    if target.pattern is not None:
        pattern = parse_pattern(target.pattern)
        return {name: keep_n_of_m(layer, pattern, axes[name]) for name, layer in scores.items()}
    if target.threshold is not None:
        return {name: keep_above(layer, target.threshold) for name, layer in scores.items()}
    if target.scope in {Scope.GLOBAL, Scope.LAMP}:
        comparable = lamp_scores if target.scope is Scope.LAMP else np.asarray
        masks = keep_largest_together([comparable(layer) for layer in scores.values()], target.ratio)
        return dict(zip(scores, masks, strict=True))
    if target.scope is Scope.LAYER:
        return {name: keep_largest(layer, target.ratio) for name, layer in scores.items()}
    ratios = sensitive_ratios(curves(), {name: layer.size for name, layer in scores.items()}, target.ratio)
    return {name: keep_largest(layer, ratios[name]) for name, layer in scores.items()}


def sensitive_ratios(
    curves: Mapping[str, list[Point]], sizes: Mapping[str, int], ratio: float
) -> dict[str, float]:
    """Return each layer's ratio so that `ratio` of all weights go with the least measured harm.

    Where the measured ratios cannot reach so far, what is missing is taken from all in equal parts of
    what they have left.
    """
    wanted = ratio * sum(sizes.values())
    chosen = {name: point.ratio for name, point in allocate(curves, wanted, exactly=True).items()}
    missing = wanted - sum(chosen[name] * size for name, size in sizes.items())
    left = sum((1.0 - chosen[name]) * size for name, size in sizes.items())
    share = max(missing, 0.0) / left if left else 0.0
    return {name: chosen[name] + share * (1.0 - chosen[name]) for name in sizes}


def measured_curves(
    scores: Mapping[str, Scores],
    harm_without: Callable[[str, Mask], float],
    between: Callable[[int, int], None],
) -> dict[str, list[Point]]:
    """Return every layer's curve.

    Args:
        scores: of every weight.
        harm_without: measures the answers with one layer's weights masked and all others as they are.
        between: called before each layer with how many are done, and of how many.
    """
    curves = {}
    for done, (name, layer) in enumerate(scores.items()):
        between(done, len(scores))
        curves[name] = [
            Point(ratio, ratio * layer.size, harm_without(name, keep_largest(layer, ratio)))
            for ratio in MEASURED_RATIOS
            if round(ratio * layer.size) > 0
        ]
    between(len(scores), len(scores))
    return curves


def combined(scores: Scores, kept: Mask) -> Scores:
    """Return scores in which what is gone already goes first: a weight that was pruned stays pruned."""
    return np.where(kept, scores, -1.0)
