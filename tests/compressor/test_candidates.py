"""What recipes become before they are tried."""

import pytest

from flyweight.compressor.candidates import candidates_of
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage
from flyweight.compressor.recipe import steps_of


def test_a_recipe_of_graph_passes_stays_as_it_is(models) -> None:
    recipe = PassSequence([DynamicInt8(), Fp16Storage()])
    (candidate,) = candidates_of({"small": recipe}, Model(path=models.mlp()))
    assert steps_of(candidate.recipe) == steps_of(recipe)
    assert not candidate.imports
    assert not candidate.trains
    assert candidate.skip({}) is None


@pytest.mark.torch
def test_a_recipe_that_trains_gets_an_import_and_an_export(models) -> None:
    pytest.importorskip("torch")
    from flyweight.compressor.passes.distill.soft_labels import FineTune

    (candidate,) = candidates_of({"tuned": FineTune()}, Model(path=models.mlp()))
    assert [step.name for step in steps_of(candidate.recipe)] == ["import", "fine-tune", "export"]
    assert candidate.imports
    assert candidate.trains


def test_the_name_of_the_baseline_is_taken(models) -> None:
    with pytest.raises(RecipeError, match="'baseline' is the uncompressed model's name"):
        candidates_of({"baseline": Fp16Storage()}, Model(path=models.mlp()))
