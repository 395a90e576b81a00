"""Distillation from what the original has inside: hints and attention."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import PassResult
from flyweight.compressor.passes.distill.feature_losses import Regressors, attention_loss, both, hint_loss
from flyweight.compressor.passes.distill.features import Pair, caught, pair_layers
from flyweight.compressor.passes.distill.lesson import Lesson, describe_training, lesson_for
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.distill.soft_labels import SoftLabelDistillation
from flyweight.compressor.training import (
    Rows,
    Trained,
    TrainingHooks,
    WholeLoss,
    seeded,
    tensor_of,
    train,
    training_device,
)

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


class Transfer(Enum):
    """What of the features is handed on."""

    HINT = "hint"
    """The features themselves, through a regressor where the student has fewer (FitNets)."""

    ATTENTION = "attention"
    """Where in the image they are strong, whatever they are."""


@dataclass(frozen=True, slots=True)
class HintDistillation(SoftLabelDistillation):
    """Trains a module to have the original's features inside as well as its answers.

    loss = answers + weight x mean over the pairs of the distance of their features; see `feature_losses` for
    both distances and their papers. FitNets trains on hints first and on answers then; both at once needs no
    second schedule. The teacher runs in every step, so an epoch costs its forward pass more.

    Attributes:
        transfer: what is compared.
        layers: globs over names of the student's layers; the teacher's layers of the same names, or, where
            no name is the same, of the same spatial shape. Empty for the last layer of each spatial shape.
        weight: of the features against the answers. Both are relative, of the order of 1 at the start.
    """

    name: ClassVar[str] = "hints"

    transfer: Transfer = Transfer.HINT
    layers: tuple[str, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if not self.weight > 0:
            raise RecipeError(f"The weight of hints is above 0, and {self.weight} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a trained copy of the module.

        Raises:
            PassError: there is no original to learn from, no layers can be compared, or training diverged.
            OutOfTimeError: the deadline came before the first epoch was done.
        """
        lesson = lesson_for(model, context)
        if lesson.teacher is None:
            raise PassError("Hints come from the original, which cannot teach this model; use distill.")
        student = copy.deepcopy(model.torch_module())
        example = [tensor_of(array) for array in model.example.values()]
        pairs = pair_layers(student, lesson.teacher, example, self.layers)
        if self.transfer is Transfer.ATTENTION:
            pairs = [pair for pair in pairs if _has_places(student, pair, example)]
            if not pairs:
                raise PassError("Attention is about places, and no layer has any; use transfer 'hint'.")
        trained = self._train(student, lesson, pairs, context)
        notes = (
            *describe_training(lesson, trained, self.training.epochs),
            f"The {self.transfer.value} came from {len(pairs)} layers ({pairs[-1].teacher} the last).",
        )
        return PassResult(replace(model, module=student), changed=True, notes=notes)

    def _train(
        self, student: nn.Module, lesson: Lesson, pairs: Sequence[Pair], context: "Context"
    ) -> Trained:
        assert lesson.teacher is not None, "checked by the caller"
        with seeded(context.seed):
            regressors = Regressors(pairs)
        teacher = lesson.teacher.to(training_device())
        hooks = TrainingHooks(
            before_step=self.augmentation.hook(lesson.rows, teacher),
            parameters=tuple(regressors.parameters()),
        )
        with (
            caught(student, [pair.student for pair in pairs]) as own,
            caught(teacher, [pair.teacher for pair in pairs]) as theirs,
        ):
            answers = TrainingLoss(self.distillation, self.training.label_smoothing)
            loss = _FeatureLoss(answers, self, regressors, pairs, teacher, (own, theirs))
            return train(student, lesson.rows, loss, self.training, context, hooks)


@dataclass(frozen=True, slots=True)
class _FeatureLoss(WholeLoss):
    """The loss of answers and features together."""

    answers: TrainingLoss
    settings: HintDistillation
    regressors: Regressors
    pairs: Sequence[Pair]
    teacher: nn.Module
    features: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]

    def of_all(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
        with torch.no_grad():
            self.teacher(*rows.inputs)
        losses = []
        for index, pair in enumerate(self.pairs):
            student, teacher = both(pair, *self.features)
            if self.settings.transfer is Transfer.ATTENTION:
                losses.append(attention_loss(student, teacher, pair.axis))
            else:
                losses.append(hint_loss(self.regressors.translate(index, student), teacher))
        mean = sum(losses[1:], losses[0]) / len(losses)
        return self.answers.of_all(outputs, rows) + self.settings.weight * mean


def _has_places(student: nn.Module, pair: Pair, example: Sequence[Tensor]) -> bool:
    """Return whether a layer's features have more than one place for each channel."""
    with caught(student, [pair.student]) as features, torch.no_grad():
        student.eval()(*example)
        found = features[pair.student]
    return found.numel() > found.shape[0] * found.shape[pair.axis]
