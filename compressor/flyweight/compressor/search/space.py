"""The space of recipes as data: stages of which each takes one choice, whose options are genes.

    Space((Stage("shape", (AS_IS, Choice("prune", (Step("prune", {"ratio": Gene((0.25, 0.5))}), ...)))), ...))

Every trial has a value for every gene, also for those of choices it did not take: a genetic algorithm can
then cross any two of them, and what lies idle in one may be of use in its children. Two trials that differ in
idle genes only make the same recipe, which is measured once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from pydantic import TypeAdapter, ValidationError

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassSequence
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.compressor.recipe import pass_class

Genes = Mapping[str, int]
"""The place of the value of each gene, by the gene's name."""


@dataclass(frozen=True, slots=True)
class Gene:
    """An option that the search chooses.

    Attributes:
        values: to choose from, in the types that recipes have.
        ordered: whether neighbours are alike, so that a sampler may interpolate.
    """

    values: tuple[object, ...]
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of a choice, by its name in the catalogue; options may be genes, also in nested mappings."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to do a stage: passes in order; none leaves the model as it is."""

    name: str
    steps: tuple[Step, ...] = ()

    def available(self) -> bool:
        """Return whether this installation has all of its passes."""
        return all(step.name in CATALOGUE for step in self.steps)


@dataclass(frozen=True, slots=True)
class Stage:
    """A place in a recipe, taken by one of its choices."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Favourite:
    """A recipe that is known to be good, tried before anything else.

    Attributes:
        choices: the choice it takes, by stage; the other stages do nothing.
        options: the values of genes, by their names; those that are not named stay in the middle.
    """

    choices: Mapping[str, str]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a sampler sees of a gene: how many values it has, and whether they are in order."""

    name: str
    count: int
    ordered: bool


class Space:
    """All recipes that can be made of stages for a model of one form."""

    def __init__(self, stages: tuple[Stage, ...], form: Form, favourites: tuple[Favourite, ...] = ()) -> None:
        """Leave out what is not installed, and check the rest.

        Args:
            stages: in the order in which their passes are applied.
            form: of the model that recipes start from; ONNX models are imported for passes that need torch.
            favourites: to try first; those that name what is not there are left out.

        Raises:
            RecipeError: two stages or two choices of a stage have one name, or nothing is left to choose.
        """
        self.form = form
        self.stages = tuple(
            Stage(stage.name, tuple(choice for choice in stage.choices if self._possible(choice)))
            for stage in stages
        )
        names = [choice.name for stage in self.stages for choice in stage.choices if choice.steps]
        names += [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise RecipeError("Two stages or choices of the search space have one name; rename one.")
        if not any(len(stage.choices) > 1 for stage in self.stages):
            raise RecipeError("The search space leaves nothing to choose; give a stage of two choices.")
        self._known = tuple(genes for favourite in favourites if (genes := self._genes(favourite)))

    def parameters(self) -> tuple[Parameter, ...]:
        """Return every gene, always the same ones in the same order."""
        found = [
            Parameter(stage.name, len(stage.choices), ordered=False)
            for stage in self.stages
            if len(stage.choices) > 1
        ]
        for stage in self.stages:
            for choice in stage.choices:
                for name, gene in _genes_of(choice):
                    if len(gene.values) > 1:
                        found.append(Parameter(name, len(gene.values), gene.ordered))
        return tuple(found)

    def recipe(self, genes: Genes) -> Pass | None:
        """Return the recipe of these genes; None if it leaves the model as it is.

        Raises:
            RecipeError: a pass refuses its options.
        """
        made: list[Pass] = []
        for stage in self.stages:
            choice = stage.choices[genes.get(stage.name, 0)]
            for place, step in enumerate(choice.steps):
                options = {
                    option: _valued(value, f"{_prefix(choice, place)}.{option}", genes)
                    for option, value in step.options.items()
                }
                made.append(make_pass(step.name, options))
        return _joined(made, self.form) if made else None

    def starters(self) -> tuple[Genes, ...]:
        """Return what to try first: favourites, every choice alone that none of them takes, then a full one.

        Of the choices, what comes last in a recipe is tried first: it is quicker to make, and time may run
        out. The genetic algorithm then crosses what is known to work, instead of hoping that chance draws it.
        The full one is the first choice of every stage; favourites are better combinations where there are
        any.
        """
        middle = self._middle()
        covered = {(stage.name, genes[stage.name]) for genes in self._known for stage in self.stages}
        alone = [
            {**middle, stage.name: place}
            for stage in reversed(self.stages)
            for place, choice in enumerate(stage.choices)
            if choice.steps and (stage.name, place) not in covered
        ]
        full = {
            stage.name: next((place for place, choice in enumerate(stage.choices) if choice.steps), 0)
            for stage in self.stages
        }
        combined = sum(map(bool, full.values())) > 1 and not self._known
        return (*self._known, *alone, *([{**middle, **full}] if combined else []))

    def taken(self, genes: Genes) -> tuple[str, ...]:
        """Return the names of the choices that do something."""
        choices = (stage.choices[genes.get(stage.name, 0)] for stage in self.stages)
        return tuple(choice.name for choice in choices if choice.steps)

    def digest(self) -> str:
        """Return what a study checks before it goes on with a space."""
        told = [
            [stage.name, [[c.name, [[s.name, _plain(s.options)] for s in c.steps]] for c in stage.choices]]
            for stage in self.stages
        ]
        first = [dict(genes) for genes in self._known]
        return hashlib.sha256(json.dumps([self.form.name, told, first]).encode()).hexdigest()

    def _middle(self) -> dict[str, int]:
        """Return the genes of a recipe that does nothing, with every option in the middle of its values."""
        middle = {parameter.name: (parameter.count - 1) // 2 for parameter in self.parameters()}
        return {**middle, **{stage.name: 0 for stage in self.stages}}

    def _genes(self, favourite: Favourite) -> Genes | None:
        """Return the genes of a favourite; None where a stage, a choice, a gene or a value is not there."""
        values = {
            name: gene.values
            for stage in self.stages
            for choice in stage.choices
            for name, gene in _genes_of(choice)
        }
        names = {stage.name: [choice.name for choice in stage.choices] for stage in self.stages}
        chosen = self._middle()
        for wanted, known in ((favourite.choices, names), (favourite.options, values)):
            for name, value in wanted.items():
                places = list[object](known.get(name, ()))
                if value not in places:
                    return None
                chosen[name] = places.index(value)
        return chosen

    def _possible(self, choice: Choice) -> bool:
        if not choice.available():
            return False
        try:
            needs = {pass_class(step.name).needs for step in choice.steps}
        except ImportError:
            return False
        return Form.TORCH not in needs or self.form is Form.TORCH or "import" in CATALOGUE


def make_pass(name: str, options: Mapping[str, object]) -> Pass:
    """Return a pass by its name in the catalogue.

    Raises:
        RecipeError: it has no such option, or refuses a value.
    """
    try:
        made = TypeAdapter(pass_class(name)).validate_python(dict(options))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise RecipeError(f"The search space: option {place} of {name}: {fault['msg']}.") from error
    assert isinstance(made, Pass), "the catalogue holds passes"
    return made


def _joined(steps: list[Pass], form: Form) -> Pass:
    """Put imports and exports where one form follows the other; what ends in torch is exported."""
    whole: list[Pass] = []
    if steps[0].needs is Form.TORCH and form is Form.ONNX:
        whole.append(make_pass("import", {}))
    if steps[0].needs is Form.ONNX and form is Form.TORCH:
        whole.append(make_pass("export", {}))
    for step, after in pairwise([*steps, None]):
        assert step is not None, "only the last is None"
        whole.append(step)
        wanted = Form.ONNX if after is None else after.needs
        if step.gives is Form.TORCH and wanted is not Form.TORCH:
            whole.append(make_pass("export", {}))
        elif step.gives is Form.ONNX and wanted is Form.TORCH:
            whole.append(make_pass("import", {}))
    return whole[0] if len(whole) == 1 else PassSequence(whole)


def _genes_of(choice: Choice) -> Iterator[tuple[str, Gene]]:
    for place, step in enumerate(choice.steps):
        yield from _genes_in(step.options, _prefix(choice, place))


def _genes_in(options: object, prefix: str) -> Iterator[tuple[str, Gene]]:
    if isinstance(options, Gene):
        yield prefix, options
    elif isinstance(options, Mapping):
        for name, value in options.items():
            yield from _genes_in(value, f"{prefix}.{name}")


def _prefix(choice: Choice, place: int) -> str:
    step = choice.steps[place].name
    return step if choice.name == step and place == 0 else f"{choice.name}/{place}-{step}"


def _valued(value: object, name: str, genes: Genes) -> object:
    """Return an option with the values of its genes; a gene that was not drawn has its first value."""
    if isinstance(value, Gene):
        return value.values[genes.get(name, 0)]
    if isinstance(value, Mapping):
        return {key: _valued(item, f"{name}.{key}", genes) for key, item in value.items()}
    return value


def _plain(value: object) -> object:
    if isinstance(value, Gene):
        return ["gene", value.ordered, [_plain(item) for item in value.values]]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
