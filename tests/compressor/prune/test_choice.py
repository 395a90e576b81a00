"""Which weights go, by every rule."""

from collections.abc import Mapping

import numpy as np
import pytest

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.prune.allocation import Point
from flyweight.compressor.passes.prune.choice import (
    MEASURED_RATIOS,
    Target,
    choose,
    combined,
    measured_curves,
    sensitive_ratios,
)
from flyweight.compressor.passes.prune.scope import Scope

SCORES = {"a": np.array([[1.0, 2.0, 3.0, 4.0]]), "b": np.array([[10.0, 20.0, 30.0, 40.0]])}
AXES = {"a": 1, "b": 1}


def never() -> Mapping[str, list[Point]]:
    raise AssertionError("only sensitivity measures")


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (Target(0.5, None, None, Scope.LAYER), {"a": 2, "b": 2}),
        (Target(0.5, None, None, Scope.GLOBAL), {"a": 0, "b": 4}),
        (Target(0.5, None, None, Scope.LAMP), {"a": 2, "b": 2}),
        (Target(0.5, 3.0, None, Scope.GLOBAL), {"a": 1, "b": 4}),
        (Target(0.5, None, "1:4", Scope.GLOBAL), {"a": 1, "b": 1}),
    ],
)
def test_each_rule_keeps_as_many_as_it_says(target: Target, kept: dict[str, int]) -> None:
    masks = choose(SCORES, AXES, target, never)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == kept


def test_lamp_takes_most_where_a_few_weights_hold_most() -> None:
    scores = {"even": np.array([1.0, 1.1, 1.2, 1.3]), "steep": np.array([0.1, 0.2, 0.3, 100.0])}
    masks = choose(scores, {"even": 0, "steep": 0}, Target(0.5, None, None, Scope.LAMP), never)
    # 0.01, 0.04 and 0.09 of 10,000 and the 1 of 5.34 that are left in the other layer.
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "even": [False, True, True, True],
        "steep": [False, False, False, True],
    }


def test_a_part_of_a_target_is_a_part_of_its_ratio_or_threshold() -> None:
    assert Target(0.8, None, None, Scope.LAMP).part(0.5) == Target(0.4, None, None, Scope.LAMP)
    assert Target(0.8, 2.0, None, Scope.LAYER).part(0.5) == Target(0.4, 1.0, None, Scope.LAYER)


def test_sensitivity_takes_from_the_layer_that_is_harmed_least() -> None:
    curves = {"a": [Point(0.5, 2, 9.0)], "b": [Point(0.5, 2, 0.1), Point(1.0, 4, 0.3)]}
    masks = choose(SCORES, AXES, Target(0.5, None, None, Scope.SENSITIVITY), lambda: curves)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 4, "b": 0}


def test_what_was_measured_may_not_suffice() -> None:
    """Half of 8 weights could be saved by what was measured; the missing two come from both alike."""
    curves = {"a": [Point(0.5, 2, 1.0)], "b": [Point(0.5, 2, 1.0)]}
    assert sensitive_ratios(curves, {"a": 4, "b": 4}, 0.75) == pytest.approx({"a": 0.75, "b": 0.75})


def test_curves_hold_every_measured_ratio_and_what_it_saves() -> None:
    seen: list[tuple[int, int]] = []
    curves = measured_curves(
        {"a": np.arange(100.0)},
        lambda _, mask: float((~mask).sum()),
        lambda done, total: seen.append((done, total)),
    )
    assert [point.ratio for point in curves["a"]] == list(MEASURED_RATIOS)
    assert all(point.harm == point.saved == round(100 * point.ratio) for point in curves["a"])
    assert seen == [(0, 1), (1, 1)]


def test_what_is_gone_goes_first_again() -> None:
    assert combined(np.array([5.0, 0.1]), np.array([False, True])).tolist() == [-1.0, 0.1]


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 1.0},
        {"pattern": "4:2"},
        {"threshold": -1.0},
        {"threshold": 0.1, "pattern": "2:4"},
    ],
)
def test_impossible_targets_are_refused(options: dict[str, object]) -> None:
    settings = {"ratio": 0.5, "threshold": None, "pattern": None, "scope": Scope.LAYER, **options}
    with pytest.raises(RecipeError):
        Target(**settings)
