"""Recipes in YAML: read, refused by name, written back."""

from pathlib import Path

import pytest

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8
from flyweight.compressor.recipe import default_recipes, dump_recipe, kind_of, load_recipes, steps_of


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_options_reach_the_pass(tmp_path: Path) -> None:
    text = "name: mine\npasses:\n  - static-int8: {per_channel: false, exclude: [conv1]}\n"
    assert load_recipes(recipe(tmp_path, text)) == {"mine": StaticInt8(per_channel=False, exclude=("conv1",))}


def test_several_passes_become_a_sequence(tmp_path: Path) -> None:
    made = load_recipes(recipe(tmp_path, "name: both\npasses: [dynamic-int8, fp16]\n"))["both"]
    assert isinstance(made, PassSequence)
    assert steps_of(made) == (DynamicInt8(), Fp16Storage())
    assert kind_of(made) == "dynamic int8 + fp16 storage"


def test_one_file_may_hold_several_recipes(tmp_path: Path) -> None:
    text = "name: a\npasses: [fp16]\n---\nname: b\npasses: [static-int8]\n"
    assert list(load_recipes(recipe(tmp_path, text))) == ["a", "b"]


@pytest.mark.parametrize("name", list(default_recipes()))
def test_what_is_written_to_a_manifest_is_read_back(tmp_path: Path, name: str) -> None:
    made = default_recipes()[name]
    assert load_recipes(recipe(tmp_path, dump_recipe(name, made))) == {name: made}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no recipe"),
        ("name: [", "is not YAML"),
        ("- fp16", "where a recipe with `name:` and `passes:` should be"),
        ("name: a\npass: [fp16]", "a recipe has no key 'pass'"),
        ("passes: [fp16]", "the recipe has no name; write `name: ...`"),
        ("name: 8\npasses: [fp16]", r"8 cannot name a variant; .*\(quote numbers\)"),
        ("name: a/b\npasses: [fp16]", "'a/b' cannot name a variant"),
        ("name: baseline\npasses: [fp16]", "is the uncompressed model's name"),
        ("name: a\npasses: []", "needs a list of at least one pass"),
        ("name: a\npasses: fp16", "needs a list of at least one pass"),
        ("name: a\npasses: [fp17]", "no pass 'fp17'; did you mean 'fp16'"),
        ("name: a\npasses: [Static_Int8]", "did you mean 'static-int8'"),
        ("name: a\npasses: [magic]", "`flyweight passes` lists what there is"),
        ("name: a\npasses: [{fp16: {}, export: {}}]", "is no pass"),
        ("name: a\npasses: [static-int8: fast]", "should be a mapping"),
        (
            "name: a\npasses: [static-int8: {per_chanel: true}]",
            "no option 'per_chanel'; did you mean 'per_channel'",
        ),
        ("name: a\npasses: [static-int8: {per_channel: [1]}]", "option per_channel of static-int8"),
        ("name: a\npasses: [static-int8: {percentile: 7}]", "above 50"),
        ("name: a\npasses: [fp16]\n---\nname: a\npasses: [fp16]", "two recipes called 'a'"),
    ],
)
def test_a_malformed_recipe_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as failure:
        load_recipes(recipe(tmp_path, text))
    assert "recipe.yaml" in str(failure.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read"):
        load_recipes(tmp_path / "nowhere.yaml")


def test_an_empty_sequence_is_no_recipe() -> None:
    with pytest.raises(RecipeError, match="at least one pass"):
        PassSequence([])


@pytest.mark.torch
def test_an_export_and_an_import_are_put_where_neighbours_need_them(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    made = load_recipes(recipe(tmp_path, "name: deep\npasses: [sparsify, share, fine-tune, encode]\n"))[
        "deep"
    ]
    names = [step.name for step in steps_of(made)]
    assert names == ["sparsify", "export", "share", "import", "fine-tune", "export", "encode"]
