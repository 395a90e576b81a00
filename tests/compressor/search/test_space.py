"""The space of recipes: genes in, recipes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.compressor.recipe import dump_recipe, steps_of
from flyweight.compressor.search.choices import AS_IS, default_space
from flyweight.compressor.search.sensitivity import spared
from flyweight.compressor.search.space import Choice, Gene, Space, Stage, Step, make_pass

INT8 = Choice(
    "static-int8",
    (Step("static-int8", {"percentile": Gene((99.0, 99.9, 100.0)), "exclude": Gene(((), ("a",)))}),),
)
SMALL = Space((Stage("numbers", (AS_IS, INT8, Choice("fp16", (Step("fp16"),)))),), Form.ONNX)


def test_the_genes_are_the_stages_and_the_options() -> None:
    assert [(p.name, p.count, p.ordered) for p in SMALL.parameters()] == [
        ("numbers", 3, False),
        ("static-int8.percentile", 3, True),
        ("static-int8.exclude", 2, True),
    ]


def test_genes_choose_passes_and_their_options() -> None:
    recipe = SMALL.recipe({"numbers": 1, "static-int8.percentile": 2, "static-int8.exclude": 1})
    assert recipe == make_pass("static-int8", {"percentile": 100.0, "exclude": ("a",)})
    assert SMALL.recipe({"numbers": 0, "static-int8.percentile": 2}) is None
    assert SMALL.taken({"numbers": 2}) == ("fp16",)


def test_idle_genes_change_nothing() -> None:
    first, second = ({"numbers": 2, "static-int8.percentile": place} for place in (0, 2))
    assert SMALL.recipe(first) == SMALL.recipe(second)


def test_a_pass_that_is_not_installed_takes_its_choice_with_it() -> None:
    space = Space((Stage("numbers", (AS_IS, INT8, Choice("magic", (Step("no-such-pass"),)))),), Form.ONNX)
    assert [choice.name for choice in space.stages[0].choices] == ["as-is", "static-int8"]


def test_a_space_without_a_choice_is_refused() -> None:
    with pytest.raises(RecipeError, match="leaves nothing to choose"):
        Space((Stage("numbers", (AS_IS,)),), Form.ONNX)


def test_two_choices_of_one_name_are_refused() -> None:
    with pytest.raises(RecipeError, match="have one name"):
        Space((Stage("a", (AS_IS, INT8)), Stage("b", (AS_IS, INT8))), Form.ONNX)


def test_an_option_that_a_pass_refuses_is_named() -> None:
    with pytest.raises(RecipeError, match="option percentile of static-int8"):
        make_pass("static-int8", {"percentile": "many"})


def test_the_digest_depends_on_every_value() -> None:
    other = Space((Stage("numbers", (AS_IS, Choice("fp16", (Step("fp16"),)))),), Form.ONNX)
    assert SMALL.digest() != other.digest()
    assert SMALL.digest() == Space(SMALL.stages, Form.ONNX).digest()


def test_starters_try_every_choice_alone() -> None:
    assert [SMALL.taken(genes) for genes in SMALL.starters()] == [("static-int8",), ("fp16",)]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], ((),)),
        ([["a"], ["b"]], ((), ("a",))),
        (
            [["a", "b"], ["c"], ["d"], ["e"], ["f"]],
            ((), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")),
        ),
    ],
)
def test_the_most_sensitive_layers_are_spared_in_doubling_numbers(
    groups: list[list[str]], expected: tuple[tuple[str, ...], ...]
) -> None:
    assert spared(groups) == expected


SPACES = {form: default_space(form, [["a"], ["b"], ["c"], ["d"]]) for form in (Form.ONNX,)}


@given(st.data())
def test_every_recipe_of_the_default_space_fits_together_and_ends_in_a_file(data: st.DataObject) -> None:
    """PassSequence refuses passes that do not fit; options that a pass refuses raise."""
    space = SPACES[Form.ONNX]
    genes = {p.name: data.draw(st.integers(0, p.count - 1), p.name) for p in space.parameters()}
    recipe = space.recipe(genes)
    if recipe is not None:
        assert recipe.needs is Form.ONNX
        assert recipe.gives is not Form.TORCH
        assert all(step.name in CATALOGUE for step in steps_of(recipe))
        assert dump_recipe("trial", recipe)
