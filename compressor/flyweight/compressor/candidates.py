"""What a run tries, in which order, and what is only tried after something else failed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.outcome import VariantOutcome
from flyweight.compressor.passes.base import Form, Pass, PassResult, PassSequence
from flyweight.compressor.recipe import default_recipes, require_variant_name, steps_of
from flyweight.compressor.search.favourites import is_cuttable, is_transformer, operators_of

# Times as long as what does not train.
_TRAINING: Final = 3
# Half of them train; with fewer than five hundred a network learns them by heart sooner than it recovers.
_FEWEST_TO_TRAIN: Final = 1000
# Three quarters of them judge: of 150, three that changed show what cutting without training may cost.
_FEWEST_TO_CUT: Final = 200
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
        made: what the recipe made, where a search has made and verified it already.
    """

    name: str
    recipe: Pass
    skip: Callable[[Outcomes], str | None] = always
    made: PassResult | None = None

    @property
    def trains(self) -> bool:
        """Whether it works on a torch module, and so may want data to learn from."""
        return any(map(_may_train, steps_of(self.recipe)))


def share_of_time(candidate: Candidate, others: Sequence[Candidate]) -> float:
    """Return which part of the time that is left a candidate may take, so that the others get their turn.

    What trains can use any time that it is given, so it shares with those that come after it: each different
    training counts alike, and what only has to be made and measured a third of that. The rest takes seconds,
    and may take all there is.

    Args:
        candidate: that is about to be made.
        others: that come after it.
    """
    own = _training_of(candidate)
    if own is None:
        return 1.0
    known: set[tuple[Pass, ...]] = {own}
    quick = 0
    for other in others:
        training = _training_of(other)
        # What begins with the same training gets it from memory.
        if training is None or training in known:
            quick += 1
        else:
            known.add(training)
    return _TRAINING / (_TRAINING * len(known) + quick)


def _training_of(candidate: Candidate) -> tuple[Pass, ...] | None:
    """Return the steps of a recipe up to the last that may train, by which its training is known."""
    steps = steps_of(candidate.recipe)
    torch = [place for place, step in enumerate(steps) if _may_train(step)]
    return steps[: torch[-1] + 1] if torch else None


def _may_train(step: Pass) -> bool:
    return step.needs is Form.TORCH and step.gives is Form.TORCH


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

    operators = operators_of(source.onnx_path())
    attends = is_transformer(operators)
    chosen = [
        *candidates_of(default_recipes(), source),
        *([Candidate("fused", FuseGraph())] if attends else []),
    ]
    if samples >= _FEWEST_TO_CUT and (attends or is_cuttable(operators)):
        chosen.append(_cut(attends=attends))
    # Of little use to transformers, whose layers are all alike, and slow to find out.
    chosen.append(Candidate("int8-mixed", MixedInt8(), _unless_int8_lost_quality))
    if worth_training(source, samples):
        chosen.append(Candidate("pruned-int8", _pruned_int8(source)))
    return tuple(chosen)


def _cut(*, attends: bool) -> Candidate:
    """Return a part of the channels inside the graph, without training, in the int8 that suits it."""
    from flyweight.compressor.passes.layout.fuse import FuseGraph
    from flyweight.compressor.passes.prune.prune_graph import PruneGraph
    from flyweight.compressor.passes.quantize import DynamicInt8, StaticInt8

    if attends:
        # What transformers lose a fifth of without harm are the neurons between two products.
        recipe = PassSequence([FuseGraph(), PruneGraph(ratio=0.2), DynamicInt8()])
        return Candidate("cut-int8-dynamic", recipe, _unless_published("int8-dynamic"))
    return Candidate("cut-int8", PassSequence([PruneGraph(), StaticInt8()]), _unless_published("int8"))


def _unless_published(whole: str) -> Callable[[Outcomes], str | None]:
    """Return what tells why cutting is not worth a try: the whole graph in int8 was no gain already."""

    def reason(so_far: Outcomes) -> str | None:
        outcome = so_far.get(whole)
        return None if outcome is not None and outcome.path is not None else f"{whole} itself was no gain."

    return reason


def worth_training(source: Model, samples: int) -> bool:
    """Tell whether a model is trained where nobody says so: it can be cut, and the samples are enough."""
    if source.form is Form.TORCH:
        return True
    enough = samples >= _FEWEST_TO_TRAIN and find_spec("torch") is not None
    return enough and is_cuttable(operators_of(source.onnx_path()))


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
