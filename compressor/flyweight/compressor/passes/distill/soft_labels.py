"""Training a torch module on labels and on the soft answers of the original."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.augmentation import Augmentation
from flyweight.compressor.passes.distill.lesson import describe_training, lesson_for
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.training import TrainingHooks, TrainingSettings, train

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()
UNCHANGED: Final = Augmentation()
STUDENT: Final = TrainingSettings(epochs=16)
RECOVERY: Final = TrainingSettings(epochs=8, learning_rate=1e-3)


@dataclass(frozen=True, slots=True)
class SoftLabelDistillation(Pass):
    """Trains a module to answer as the original does (Hinton et al. 2015), and on labels where there are any.

    Learns on the context's training data, or on its calibration data when there are none. The teacher is the
    context's baseline, in all its outputs; where nothing changes the inputs it answers once. Without labels
    the teacher is enough, without a teacher it is plain training on labels.

    Attributes:
        training: how long and how fast.
        distillation: how much the teacher counts, and how answers are compared.
        augmentation: new inputs for the teacher to answer; for few samples. None by default: on thousands of
            samples it costs a run of the teacher in every step and gained nothing.
    """

    name: ClassVar[str] = "distill"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    training: TrainingSettings = STUDENT
    distillation: Distillation = MIXED
    augmentation: Augmentation = UNCHANGED

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a trained copy of the module.

        Raises:
            PassError: there are neither labels nor a teacher, the data do not fit, or training diverged.
            OutOfTimeError: the deadline came before the first epoch was done.
        """
        lesson = lesson_for(model, context)
        student = copy.deepcopy(model.torch_module())
        loss = TrainingLoss(self.distillation, self.training.label_smoothing)
        hooks = TrainingHooks(before_step=self.augmentation.hook(lesson.rows, lesson.teacher))
        trained = train(student, lesson.rows, loss, self.training, context, hooks)
        notes = describe_training(lesson, trained, self.training.epochs)
        return PassResult(replace(model, module=student), changed=True, notes=notes)


@dataclass(frozen=True, slots=True)
class FineTune(SoftLabelDistillation):
    """Lets a module recover from a cut: the same training, shorter and gentler, from the weights it has."""

    name: ClassVar[str] = "fine-tune"

    training: TrainingSettings = RECOVERY
