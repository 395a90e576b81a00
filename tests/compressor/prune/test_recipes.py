"""Pruning as recipes ask for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.narrow.blocks import DropBlocks
from flyweight.compressor.passes.prune.head_scores import HeadImportance
from flyweight.compressor.passes.prune.heads import PruneHeads
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify import Criterion, Sparsify
from flyweight.compressor.passes.prune.sparsify_graph import SparsifyGraph
from flyweight.compressor.passes.prune.structured import ChannelImportance, StructuredPrune
from flyweight.compressor.recipe import dump_recipe, load_recipes, steps_of
from flyweight.compressor.training import TrainingSettings

RECIPE = """
name: slim
passes:
  - drop-blocks: {blocks: 2, max_harm: 0.5}
  - prune-heads: {ratio: 0.25, importance: taylor, scope: layer}
  - prune: {ratio: 0.5, importance: taylor, scope: sensitivity, rounds: 3, training: {epochs: 2}}
  - sparsify: {pattern: "2:4", criterion: taylor}
  - sparsify: {ratio: 0.95, scope: lamp, gradual: true, training: {epochs: 2}}
  - export
  - sparsify-graph: {threshold: 0.001, scope: lamp}
"""


def test_every_pass_can_be_asked_for_and_is_written_back_alike(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipes(tmp_path / "recipe.yaml")["slim"]
    blocks, heads, channels, sparse, gradual, _, graph = steps_of(recipe)
    assert blocks == DropBlocks(2, 0.5)
    assert heads == PruneHeads(0.25, HeadImportance.TAYLOR, Scope.LAYER)
    assert channels == StructuredPrune(
        0.5, ChannelImportance.TAYLOR, None, Scope.SENSITIVITY, 3, TrainingSettings(epochs=2)
    )
    assert sparse == Sparsify(pattern="2:4", criterion=Criterion.TAYLOR)
    assert gradual == Sparsify(0.95, scope=Scope.LAMP, gradual=True, training=TrainingSettings(epochs=2))
    assert graph == SparsifyGraph(threshold=0.001, scope=Scope.LAMP)
    (tmp_path / "again.yaml").write_text(dump_recipe("slim", recipe))
    assert steps_of(load_recipes(tmp_path / "again.yaml")["slim"]) == steps_of(recipe)


@pytest.mark.parametrize("kind", [StructuredPrune, PruneHeads])
def test_what_loses_no_single_weights_refuses_the_ranking_of_single_weights(kind: type) -> None:
    with pytest.raises(RecipeError, match="layer"):
        kind(scope=Scope.LAMP)


@pytest.mark.parametrize(
    ("step", "words"),
    [("prune: {scope: everywhere}", "scope of prune"), ("sparsify: {pattern: half}", "written like 2:4")],
)
def test_a_wrong_option_is_named(tmp_path: Path, step: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"name: wrong\npasses:\n  - {step}\n")
    with pytest.raises(RecipeError, match=words):
        load_recipes(tmp_path / "recipe.yaml")


def test_a_bare_graph_is_pruned_without_torch() -> None:
    code = (
        "import sys; import flyweight.compressor.passes.prune.sparsify_graph; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
