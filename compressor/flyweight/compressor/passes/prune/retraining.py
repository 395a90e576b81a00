"""Retraining between rounds of pruning, and the measure of what pruning did to the answers."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from flyweight.compressor.foreign import quiet
from flyweight.compressor.passes.distill.lesson import Lesson, describe_training, lesson_for
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.passes.prune.divergence import Array, divergence
from flyweight.compressor.torch_model import outputs_of
from flyweight.compressor.training import (
    Trained,
    TrainingHooks,
    TrainingSettings,
    all_answers,
    rows_of,
    train,
)

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

HARM_ROWS: Final = 64
"""Samples that harm is measured on: each layer is tried several times, and only their order counts."""


@dataclass(slots=True)
class Retraining:
    """Training after each round: on labels where there are any, and on the original's answers.

    What is learnt from is prepared once, when the first round needs it; used from one thread.
    """

    model: "Model"
    context: "Context"
    settings: TrainingSettings
    distillation: Distillation
    _lesson: Lesson | None = field(default=None, init=False)

    def __call__(self, module: nn.Module, hooks: TrainingHooks | None = None) -> tuple[str, ...]:
        """Train `module` in place and return sentences for the report.

        Raises:
            PassError: there is nothing to learn from, or training diverged.
        """
        trained = self.train(module, hooks)
        return describe_training(self.lesson(), trained, self.settings.epochs)

    def lesson(self) -> Lesson:
        """Return what is learnt from.

        Raises:
            PassError: there is nothing to learn from.
        """
        if self._lesson is None:
            self._lesson = lesson_for(self.model, self.context)
        return self._lesson

    def train(self, module: nn.Module, hooks: TrainingHooks | None = None) -> Trained:
        """Train `module` in place.

        Raises:
            PassError: there is nothing to learn from, or training diverged.
        """
        loss = TrainingLoss(self.distillation, self.settings.label_smoothing)
        return train(module, self.lesson().rows, loss, self.settings, self.context, hooks)


class Harm:
    """How far a module's answers are from the original's on calibration samples; see `divergence`.

    The original is the context's baseline where it answers in the same shapes, else the module it is made
    with.
    """

    def __init__(self, model: "Model", context: "Context") -> None:
        """Run the original once."""
        rows = rows_of(context.calibration.first(HARM_ROWS), tuple(model.example))
        self._inputs, self._context = rows.inputs, context
        module = model.torch_module()
        self._expected = self._answers(module)
        teacher = context.baseline
        if isinstance(teacher, nn.Module) and teacher is not module:
            found = self._answers(teacher.eval())
            if [array.shape for array in found] == [array.shape for array in self._expected]:
                self._expected = found

    def __call__(self, module: nn.Module) -> float:
        """Return the harm, at least 0; infinite where the answers are not finite any more."""
        return divergence(self._expected, self._answers(module))

    def _answers(self, module: nn.Module) -> list[Array]:
        outputs = all_answers(module, self._inputs, between=self._context.check_time)
        return [output.numpy() for output in outputs]


def runs(module: nn.Module, model: "Model") -> list[torch.Tensor]:
    """Return a module's answers to the model's example; raises what forward() raises."""
    example = [torch.from_numpy(array.copy()) for array in model.example.values()]
    with torch.no_grad(), quiet():
        return list(outputs_of(module(*example)))
