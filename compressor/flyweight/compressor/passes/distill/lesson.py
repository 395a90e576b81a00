"""What a training pass learns from: its rows, their labels, and the original where it can teach."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.torch_model import outputs_of
from flyweight.compressor.training import Rows, Trained, rows_of, taught, tensor_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class Lesson:
    """The rows of a training, and who teaches.

    Attributes:
        rows: with labels, the teacher's answers, or both.
        teacher: a copy of the original in evaluation mode; None without one.
        notes: what a reader of the report must know.
    """

    rows: Rows
    teacher: nn.Module | None
    notes: tuple[str, ...] = ()


def lesson_for(model: "Model", context: "Context", *, listens: bool = True) -> Lesson:
    """Return what `model` can be trained on: the training data, or the calibration data without any.

    The original teaches where it answers in the same shapes, and where `listens`; a model with another head
    than the original's learns from labels alone.

    Raises:
        PassError: there are neither labels nor a teacher, or the data lack an input of the model.
    """
    data = context.training if context.training is not None else context.calibration
    rows = rows_of(data, tuple(model.example))
    teacher = context.baseline if listens and isinstance(context.baseline, nn.Module) else None
    notes = list[str]()
    if teacher is not None and _shapes(teacher, model) != _shapes(model.torch_module(), model):
        teacher = None
        notes.append("The original answers in another shape and could not teach.")
    if teacher is not None:
        teacher = copy.deepcopy(teacher).eval()
        rows = taught(rows, teacher, context.threads, context.check_time)
    if rows.labels is None and rows.teacher is None:
        raise PassError("Training needs labels or the original module, and has neither; give labelled data.")
    return Lesson(rows, teacher, tuple(notes))


def describe_training(lesson: Lesson, trained: Trained, epochs: int) -> tuple[str, ...]:
    """Return sentences for the report."""
    rows = lesson.rows
    teachers = [
        *(["labels"] if rows.labels is not None else []),
        *(["the original's answers"] if rows.teacher is not None else []),
    ]
    limited = f" (of {epochs}: the time limit came)" if trained.out_of_time else ""
    what = (
        f"Trained on {len(rows)} samples with {' and '.join(teachers)} for {trained.epochs} epochs{limited}"
    )
    if trained.held_out_rows:
        what += (
            f"; the loss on {trained.held_out_rows} held-out samples went from {trained.first_loss:.3g} "
            f"to {trained.best_loss:.3g} (epoch {trained.best_epoch} was kept)."
        )
    else:
        what += "; too few samples to hold any out, so the last epoch was kept."
    return (*lesson.notes, what)


def _shapes(module: nn.Module, model: "Model") -> list[tuple[int, ...]]:
    was_training = module.training
    with torch.no_grad():
        outputs = outputs_of(module.eval()(*(tensor_of(array) for array in model.example.values())))
    module.train(was_training)
    return [tuple(output.shape) for output in outputs]
