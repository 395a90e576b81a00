"""The algebra of passes: a pass takes a model and returns a result; a sequence of passes is a pass.

A pass says which form of model it needs and which it gives; the base class checks both, so that a mistake is
named where it is made and not three passes later.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from flyweight.compressor.errors import PassError, RecipeError

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


class Form(Enum):
    """What a model is at some point of a recipe."""

    TORCH = "a torch module"
    ONNX = "an ONNX graph"
    CODED = "a coded file"


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass made of a model.

    `notes` are sentences for the report: what was changed, what was left alone and why.
    """

    model: "Model"
    changed: bool
    notes: tuple[str, ...] = field(default=())


class Pass(ABC):
    """A transformation of a model: frozen, so that its fields are its identity and its cache key."""

    name: ClassVar[str]
    """How recipes call it."""
    needs: ClassVar[Form]
    gives: ClassVar[Form]

    def __call__(self, model: "Model", context: "Context") -> PassResult:
        """Apply the pass and check what it promised; never changes `model` in place.

        Raises:
            PassError: the model is of another form than it needs, or the result of another than it gives.
        """
        if model.form is not self.needs:
            raise PassError(
                f"The pass {self.name} works on {self.needs.value} and was given {model.form.value}."
            )
        result = self.apply(model, context)
        if result.model.form is not self.gives:
            raise PassError(
                f"The pass {self.name} promised {self.gives.value} and gave {result.model.form.value}."
            )
        return result

    @abstractmethod
    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return the transformed model; called only with the form the pass needs."""


class PassSequence(Pass):
    """Passes applied one after the other; itself a pass."""

    name: ClassVar[str] = "sequence"

    def __init__(self, passes: SequenceOf[Pass]) -> None:
        """Check that each pass gives what the next one needs.

        Raises:
            RecipeError: there is no pass, or two neighbours do not fit.
        """
        if not passes:
            raise RecipeError("A recipe needs at least one pass.")
        for earlier, later in pairwise(passes):
            if earlier.gives is not later.needs:
                raise RecipeError(
                    f"The pass {earlier.name} gives {earlier.gives.value}, "
                    f"and {later.name} after it needs {later.needs.value}."
                )
        self.passes = tuple(passes)

    @property
    def needs(self) -> Form:  # type: ignore[override]  # a sequence's form is its passes', known per instance
        """The form its first pass needs."""
        return self.passes[0].needs

    @property
    def gives(self) -> Form:  # type: ignore[override]  # as above
        """The form its last pass gives."""
        return self.passes[-1].gives

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Apply each pass to the result of the one before it."""
        changed, notes = False, list[str]()
        for step in self.passes:
            result = step(model, context)
            model, changed = result.model, changed or result.changed
            notes.extend(result.notes)
        return PassResult(model, changed, tuple(notes))
