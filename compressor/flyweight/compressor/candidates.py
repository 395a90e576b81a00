"""What a run tries, in which order, and what is only tried after something else failed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.outcome import VariantOutcome
from flyweight.compressor.passes.base import Form, Pass, PassSequence
from flyweight.compressor.recipe import default_recipes, require_variant_name, steps_of

IMPORT: Final = "import"
# Half of them train; with fewer than five hundred a network learns them by heart sooner than it recovers.
_FEWEST_TO_TRAIN: Final = 1000
# Only where these are is there something to cut, and attention is better left to its own passes.
_CUT: Final = frozenset({"Conv", "Gemm", "MatMul"})
_NORMALISATIONS: Final = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "ReduceMean"})
Outcomes = Mapping[str, VariantOutcome]


def always(_so_far: Outcomes) -> str | None:
    """Give no reason to skip."""
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that may be made.

    Attributes:
        name: of the variant.
        recipe: that makes it; gives an ONNX graph or a coded file.
        skip: looks at what was made so far and returns why this one is not worth trying, or None.
    """

    name: str
    recipe: Pass
    skip: Callable[[Outcomes], str | None] = always

    @property
    def imports(self) -> bool:
        """Whether it turns an ONNX graph into a torch module on its way."""
        return any(step.name == IMPORT for step in steps_of(self.recipe))

    @property
    def trains(self) -> bool:
        """Whether it works on a torch module, and so may want data to learn from."""
        return any(step.needs is Form.TORCH and step.gives is Form.TORCH for step in steps_of(self.recipe))


def candidates_of(recipes: Mapping[str, Pass], source: Model) -> tuple[Candidate, ...]:
    """Return the recipes that the user named as candidates, each completed so that it can be served.

    Raises:
        RecipeError: a name cannot name a variant, or a recipe's passes do not fit the model.
    """
    chosen = []
    for name, recipe in recipes.items():
        require_variant_name(name, "The recipes")
        chosen.append(Candidate(name, _completed(recipe, source)))
    return tuple(chosen)


def _completed(recipe: Pass, source: Model) -> Pass:
    """Put an import before a recipe that trains and an export behind one that ends in torch, where needed."""
    steps = list(steps_of(recipe))
    if recipe.needs is Form.TORCH and source.form is Form.ONNX:
        from flyweight.compressor.passes.importing import Import

        steps.insert(0, Import())
    if recipe.gives is Form.TORCH:
        from flyweight.compressor.passes.export import Export

        steps.append(Export())
    if steps[0].needs is Form.CODED:
        raise RecipeError(f"A recipe cannot begin with {steps[0].name}, which works on a coded file.")
    return steps[0] if len(steps) == 1 else PassSequence(steps)


def default_candidates(source: Model, samples: int) -> tuple[Candidate, ...]:
    """Return what is tried when the user names nothing, the quickest first.

    Args:
        source: the model.
        samples: of data; with few of them nothing is trained.
    """
    if source.form is Form.TORCH:
        from flyweight.compressor.torch_recipes import compact_torch_recipes, default_torch_recipes

        return candidates_of({**default_torch_recipes(), **compact_torch_recipes()}, source)
    from flyweight.compressor.passes.layout.fuse import FuseGraph
    from flyweight.compressor.passes.quantize.mixed_int8 import MixedInt8

    operators = {node.op_type for node in load_graph(source.onnx_path(), weights=False).graph.node}
    attends = "Softmax" in operators and bool(operators & _NORMALISATIONS)
    chosen = [
        *candidates_of(default_recipes(), source),
        Candidate("int8-mixed", MixedInt8(), _unless_int8_lost_quality),
        *([Candidate("fused", FuseGraph())] if attends else []),
    ]
    if samples >= _FEWEST_TO_TRAIN and operators & _CUT and not attends and find_spec("torch") is not None:
        chosen.append(Candidate("pruned-int8", _pruned_int8(source)))
    return tuple(chosen)


def _unless_int8_lost_quality(so_far: Outcomes) -> str | None:
    """Tell why mixed precision is not worth a try; it helps where static int8 loses too much, only there."""
    whole = so_far.get("int8")
    if whole is None or whole.evaluation is None:
        return "static int8 could not be made, and mixed precision is made like it."
    return "static int8 keeps the quality." if whole.path is not None else None


def _pruned_int8(source: Model) -> Pass:
    """Return half of the channels, recovered by learning from the original, in int8."""
    from flyweight.compressor.passes.distill.soft_labels import FineTune
    from flyweight.compressor.passes.export import Export
    from flyweight.compressor.passes.prune.structured import StructuredPrune
    from flyweight.compressor.passes.quantize.static_int8 import StaticInt8

    return _completed(PassSequence([StructuredPrune(), FineTune(), Export(), StaticInt8()]), source)
