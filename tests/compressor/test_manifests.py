"""What a variant's manifest says, also where a stranger wrote it."""

import pytest

from flyweight.compressor.manifests import passes_of


def test_passes_are_named_in_order() -> None:
    assert passes_of("passes: [fuse-graph, {prune-graph: {ratio: 0.2}}]") == ["fuse-graph", "prune-graph"]


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "int8",
        "passes: 5",
        "passes: {a: 1}",
        "passes: [5, {}, {1: 2}, null]",
        "a: 2020-13-45",
        "[",
        "{a: b",
    ],
)
def test_what_is_no_recipe_names_none(recipe: str) -> None:
    assert passes_of(recipe) == []
