"""Losses of training and distillation, for modules that classify and modules that answer with values."""

from dataclasses import dataclass, field
from enum import Enum

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.training import Rows, WholeLoss


class Matching(Enum):
    """How a student's output is compared with its teacher's."""

    AUTO = "auto"
    """As classes where outputs look like scores of classes, else as values."""

    CLASSES = "classes"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Distillation:
    """How much a student listens to its teacher, and how.

    Attributes:
        temperature: softens both answers, so that small probabilities count, which say what looks alike.
            Hinton et al. found 2.5 to 4 best for narrow students and 20 where the student is large.
        hard: weight of the true labels, 0 to 1; the teacher has the rest. Without labels the teacher has all.
        matching: what outputs mean; for outputs of shape (rows, numbers) that are neither scores of classes
            nor of unit length, such as embeddings, say `values`.
    """

    temperature: float = 4.0
    hard: float = 0.3
    matching: Matching = Matching.AUTO

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a value is out of its range.
        """
        if not self.temperature > 0:
            raise RecipeError(f"The temperature of distillation is above 0, and {self.temperature} is not.")
        if not 0 <= self.hard <= 1:
            raise RecipeError(f"The weight of hard labels is from 0 to 1, and {self.hard} is not.")


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over the rows.

    Hinton, Vinyals and Dean 2015, section 2: the gradients of soft targets shrink by 1/T^2, so the term is
    multiplied by T^2. (They write the cross entropy, which differs by the teacher's entropy, a constant.)

    Args:
        student: logits, shape (rows, classes).
        teacher: logits, same shape.
        temperature: T > 0.
    """
    soft_student = F.log_softmax(student / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def as_logits(outputs: Tensor) -> Tensor:
    """Return logits for outputs that may already be probabilities, shape (rows, classes).

    Rows of non-negative numbers that add up to one are taken for probabilities; their logarithms are logits.
    """
    sums_to_one = bool(((outputs.detach().sum(dim=1) - 1).abs() < 1e-3).all())
    if sums_to_one and bool((outputs.detach() >= 0).all()):
        return outputs.clamp_min(1e-12).log()
    return outputs


@dataclass(frozen=True, slots=True)
class TrainingLoss(WholeLoss):
    """The loss of a batch: true labels, a teacher, or both, whatever the rows have.

    Integer labels are classes (cross entropy), float labels are values (mean squared error); they are
    compared with the first output that they fit. A teacher is listened to in all its outputs alike.
    """

    distillation: Distillation = field(default_factory=Distillation)
    label_smoothing: float = 0.0

    def __call__(self, outputs: Tensor, rows: Rows) -> Tensor:
        """Return the loss of a module with one output, a scalar; see `of_all`."""
        return self.of_all((outputs,), rows)

    def of_all(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
        """Return the loss, a scalar: hard x labels + (1 - hard) x teacher (Hinton et al. 2015, section 2).

        Raises:
            PassError: there is nothing to learn from, or the labels do not fit the outputs.
        """
        if rows.labels is None and rows.teacher is None:
            raise PassError("Training needs labels or a teacher, and has neither; give labelled data.")
        if rows.labels is None:
            return self.soft(outputs, rows)
        labelled = labelled_output(outputs, rows.labels)
        if rows.teacher is None:
            return self.hard(labelled, rows.labels)
        share = self.distillation.hard
        # A weight of zero times an infinite loss is not-a-number: what does not count is not computed.
        if share >= 1.0:
            return self.hard(labelled, rows.labels)
        if share <= 0.0:
            return self.soft(outputs, rows)
        return share * self.hard(labelled, rows.labels) + (1.0 - share) * self.soft(outputs, rows)

    def hard(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the distance to the true labels."""
        if labels.is_floating_point():
            if labels.shape != outputs.shape:
                raise PassError(
                    f"Float labels of shape {_shape(labels)} do not fit outputs of shape {_shape(outputs)}; "
                    "give one value for each output."
                )
            return F.mse_loss(outputs, labels)
        if outputs.ndim != 2 or labels.ndim != 1:
            raise PassError(
                f"Integer labels of shape {_shape(labels)} do not fit outputs of shape {_shape(outputs)}; "
                "training on classes needs one label a sample and outputs of shape (samples, classes)."
            )
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= outputs.shape[1]:
            raise PassError(
                f"The labels reach from {lowest} to {highest}, and the model has {outputs.shape[1]} classes; "
                "labels must count from 0."
            )
        return F.cross_entropy(as_logits(outputs), labels, label_smoothing=self.label_smoothing)

    def soft(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
        """Return the mean over all outputs of the distance to the teacher's answers.

        Of several outputs, values count relative to the variance of the teacher's, so that no output drowns
        the others by its scale.
        """
        assert rows.teacher is not None, "only called with a teacher"
        pairs = [
            (own, taught)
            for own, taught in zip(outputs, rows.teacher, strict=False)
            if own.is_floating_point()
        ]
        if not pairs:
            raise PassError("The model has no output in floating point that a teacher could teach.")
        losses = [self._distance(own, taught, rows.labels, relative=len(pairs) > 1) for own, taught in pairs]
        return sum(losses[1:], losses[0]) / len(losses)

    def _distance(self, own: Tensor, taught: Tensor, labels: Tensor | None, *, relative: bool) -> Tensor:
        if own.shape != taught.shape:
            raise PassError(
                f"The model answers with shape {_shape(own)} and the original with {_shape(taught)}; "
                "it cannot be taught by it."
            )
        matching = self.distillation.matching
        if matching is Matching.CLASSES or (matching is Matching.AUTO and classifies(taught, labels)):
            return soft_label_loss(as_logits(own), as_logits(taught), self.distillation.temperature)
        distance = F.mse_loss(own, taught)
        return distance / taught.var(correction=0).clamp_min(1e-6) if relative else distance


def labelled_output(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Return the first output that labels can be compared with, or the first of all where none fits."""
    for output in outputs:
        if labels.is_floating_point():
            fits = output.is_floating_point() and output.shape == labels.shape
        else:
            fits = output.is_floating_point() and output.ndim == 2 and output.shape[1] >= 2
        if fits:
            return output
    return outputs[0]


def classifies(outputs: Tensor, labels: Tensor | None) -> bool:
    """Return whether outputs are scores of classes: two or more a row, and nothing that says otherwise.

    Labels of floats do, and rows that all have length 1, as embeddings made for comparison have.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or (labels is not None and labels.is_floating_point()):
        return False
    if as_logits(outputs) is not outputs:
        return True
    return not bool(((outputs.detach().norm(dim=1) - 1).abs() < 1e-3).all())


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
