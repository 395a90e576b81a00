"""Training a torch module on labels and on the soft answers of the original."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.training import Rows, Trained, TrainingSettings, answers, rows_of, threads, train

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()
STUDENT: Final = TrainingSettings(epochs=16)
RECOVERY: Final = TrainingSettings(epochs=8, learning_rate=1e-3)


@dataclass(frozen=True, slots=True)
class SoftLabelDistillation(Pass):
    """Trains a module to answer as the original does (Hinton et al. 2015), and on labels where there are any.

    Learns on the context's training data, or on its calibration data when there are none. The teacher is the
    context's baseline, whose answers are computed once. Without a baseline it is plain training on labels.
    """

    name: ClassVar[str] = "distill"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    training: TrainingSettings = STUDENT
    distillation: Distillation = MIXED

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a trained copy of the module.

        Raises:
            PassError: there are neither labels nor a teacher, the data do not fit, or training diverged.
        """
        data = context.training if context.training is not None else context.calibration
        rows = rows_of(data, tuple(model.example))
        if isinstance(context.baseline, nn.Module):
            rows = _taught(rows, context.baseline, context.threads)
        if rows.labels is None and rows.teacher is None:
            raise PassError(
                "Training needs labels or the original module, and has neither; give labelled data."
            )
        student = copy.deepcopy(model.torch_module())
        loss = TrainingLoss(self.distillation, self.training.label_smoothing)
        trained = train(student, rows, loss, self.training, context)
        return PassResult(replace(model, module=student), changed=True, notes=(_note(rows, trained, self),))


@dataclass(frozen=True, slots=True)
class FineTune(SoftLabelDistillation):
    """Lets a module recover from a cut: the same training, shorter and gentler, from the weights it has."""

    name: ClassVar[str] = "fine-tune"

    training: TrainingSettings = RECOVERY


def _taught(rows: Rows, teacher: nn.Module, count: int) -> Rows:
    with threads(count):
        return replace(rows, teacher=answers(copy.deepcopy(teacher).eval(), rows.inputs, torch.device("cpu")))


def _note(rows: Rows, trained: Trained, step: SoftLabelDistillation) -> str:
    teachers = [
        *(["labels"] if rows.labels is not None else []),
        *(["the original's answers"] if rows.teacher is not None else []),
    ]
    what = f"Trained on {len(rows)} samples with {' and '.join(teachers)} for {step.training.epochs} epochs"
    if not trained.held_out_rows:
        return f"{what}; too few samples to hold any out, so the last epoch was kept."
    return (
        f"{what}; the loss on {trained.held_out_rows} held-out samples went from {trained.first_loss:.3g} "
        f"to {trained.best_loss:.3g} (epoch {trained.best_epoch} was kept)."
    )
