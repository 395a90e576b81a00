"""What a search tries first."""

import pytest

from flyweight.compressor.passes.base import Form
from flyweight.compressor.recipe import default_recipes, dump_recipe, steps_of
from flyweight.compressor.search.choices import default_space
from flyweight.compressor.search.favourites import Traits, favourites, is_cuttable, is_transformer
from flyweight.compressor.search.space import Favourite, Space

GROUPS = [["a"], ["b"], ["c"]]
TRAITS = [Traits(attends=attends, learns=learns) for attends in (False, True) for learns in (False, True)]


def written(space: Space) -> list[list[str]]:
    """Return the starters' recipes, step by step, every option written out."""
    recipes = [space.recipe(genes) for genes in space.starters()]
    return [[dump_recipe("x", step) for step in steps_of(recipe)] for recipe in recipes if recipe is not None]


@pytest.mark.parametrize("traits", TRAITS, ids=str)
def test_the_plain_recipes_come_first_with_the_options_that_they_have_alone(traits: Traits) -> None:
    tried = written(default_space(Form.ONNX, GROUPS, trains=traits.learns, traits=traits))
    plain = [[dump_recipe("x", recipe)] for recipe in default_recipes().values()]
    assert tried[: len(plain)] == plain


@pytest.mark.torch
def test_the_recipes_of_torch_modules_are_among_them() -> None:
    pytest.importorskip("torch")
    from flyweight.compressor.torch_recipes import compact_torch_recipes, default_torch_recipes

    space = default_space(Form.TORCH, GROUPS, traits=Traits(attends=False, learns=True))
    tried = written(space)
    for name, recipe in {**default_torch_recipes(), **compact_torch_recipes()}.items():
        assert [dump_recipe("x", step) for step in steps_of(recipe)] in tried, name


@pytest.mark.torch
@pytest.mark.parametrize("traits", TRAITS, ids=str)
def test_every_favourite_is_in_the_space(traits: Traits) -> None:
    """Without torch the space has no choices that train, and the favourites that do are left out."""
    pytest.importorskip("torch")
    space = default_space(Form.ONNX, GROUPS, traits=traits)
    alone = default_space(Form.ONNX, GROUPS)
    chosen = favourites(traits)
    assert [set(space.taken(genes)) for genes in space.starters()[: len(chosen)]] == [
        set(favourite.choices.values()) for favourite in chosen
    ]
    taken = {name for genes in space.starters() for name in space.taken(genes)}
    assert taken == {name for genes in alone.starters() for name in alone.taken(genes)}


def test_a_favourite_that_names_what_is_not_there_is_left_out() -> None:
    stages = default_space(Form.ONNX, trains=False).stages
    unknown = (
        Favourite({"numbers": "magic"}),
        Favourite({"colour": "fp16"}),
        Favourite({"numbers": "weight-only"}, {"weight-only.bits": 3}),
        Favourite({"numbers": "weight-only"}, {"weight-only.colour": 4}),
    )
    plain = Space(stages, Form.ONNX)
    assert Space(stages, Form.ONNX, unknown).starters() == plain.starters()
    assert Space(stages, Form.ONNX, (Favourite({"numbers": "fp16"}),)).digest() != plain.digest()


def test_transformers_are_known_by_what_they_normalise_and_weigh() -> None:
    assert is_transformer(frozenset({"MatMul", "Softmax", "LayerNormalization"}))
    assert not is_transformer(frozenset({"Conv", "Softmax"}))
    assert is_cuttable(frozenset({"Conv", "Softmax"}))
    assert not is_cuttable(frozenset({"Gather"}))
    assert not is_cuttable(frozenset({"MatMul", "Softmax", "LayerNormalization"}))
