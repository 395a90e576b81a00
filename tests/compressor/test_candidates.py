"""What recipes become before they are tried."""

import pytest

from flyweight.compressor.candidates import candidates_of, share_of_time, worth_training
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage
from flyweight.compressor.recipe import steps_of


def test_a_recipe_of_graph_passes_stays_as_it_is(models) -> None:
    recipe = PassSequence([DynamicInt8(), Fp16Storage()])
    (candidate,) = candidates_of({"small": recipe}, Model(path=models.mlp()))
    assert steps_of(candidate.recipe) == steps_of(recipe)
    assert not candidate.trains
    assert candidate.skip({}) is None


@pytest.mark.torch
def test_a_recipe_that_trains_gets_an_import_and_an_export(models) -> None:
    pytest.importorskip("torch")
    from flyweight.compressor.passes.distill.soft_labels import FineTune

    (candidate,) = candidates_of({"tuned": FineTune()}, Model(path=models.mlp()))
    assert [step.name for step in steps_of(candidate.recipe)] == ["import", "fine-tune", "export"]
    assert candidate.trains


def test_the_name_of_the_baseline_is_taken(models) -> None:
    with pytest.raises(RecipeError, match="'baseline' is the uncompressed model's name"):
        candidates_of({"baseline": Fp16Storage()}, Model(path=models.mlp()))


@pytest.mark.torch
def test_trainings_share_the_time_and_what_is_quick_may_take_all_of_it(models) -> None:
    """Three different trainings and three quick recipes after the first: 3 of 3 x 3 + 3."""
    pytest.importorskip("torch")
    from flyweight.compressor.passes.distill.soft_labels import FineTune, SoftLabelDistillation
    from flyweight.compressor.passes.export import Export
    from flyweight.compressor.training import TrainingSettings

    recipes = {
        "tuned": FineTune(),
        "tuned-fp16": PassSequence([FineTune(), Export(), Fp16Storage()]),
        "distilled": SoftLabelDistillation(),
        "fp16": Fp16Storage(),
        "longer": FineTune(TrainingSettings(50)),
        "dynamic": DynamicInt8(),
    }
    chosen = candidates_of(recipes, Model(path=models.mlp()))
    shares = [share_of_time(candidate, chosen[place + 1 :]) for place, candidate in enumerate(chosen)]
    assert shares == [3 / 12, 3 / 11, 3 / 8, 1.0, 3 / 4, 1.0]


def test_a_file_is_trained_from_a_thousand_samples_on(models) -> None:
    pytest.importorskip("torch")
    assert not worth_training(Model(path=models.convnet()), 999)
    assert worth_training(Model(path=models.convnet()), 1000)
    assert not worth_training(Model(path=models.scaled()), 1000)
