"""Losses of training and distillation."""

import math

import pytest
import torch
from torch.nn import functional

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.distill.losses import (
    Distillation,
    Matching,
    TrainingLoss,
    as_logits,
    classifies,
    soft_label_loss,
)
from flyweight.compressor.training import Rows

STUDENT = torch.tensor([[1.0, 2.0, 3.0]])
TEACHER = torch.tensor([[3.0, 2.0, 1.0]])


def rows(labels: torch.Tensor | None = None, teacher: torch.Tensor | None = None) -> Rows:
    return Rows((torch.zeros(1, 1),), labels, None if teacher is None else (teacher,))


def random_logits(seed: int, count: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_the_soft_label_loss_is_what_a_calculator_gives() -> None:
    """At T = 2 the logarithms of the softened answers differ by (1, 0, -1): KL = p1 - p3, times T^2 = 4."""
    bottom = math.exp(1.5) + math.exp(1.0) + math.exp(0.5)
    by_hand = 4.0 * (math.exp(1.5) - math.exp(0.5)) / bottom
    assert by_hand == pytest.approx(1.280627, abs=1e-5)
    assert float(soft_label_loss(STUDENT, TEACHER, 2.0)) == pytest.approx(by_hand, abs=1e-5)


def test_the_soft_label_loss_equals_the_sum_over_classes_and_mean_over_rows() -> None:
    student, teacher, temperature = random_logits(0), random_logits(1), 3.0
    total = 0.0
    for one, other in zip(student, teacher, strict=True):
        p, q = torch.softmax(other / temperature, 0), torch.softmax(one / temperature, 0)
        total += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))
    expected = total / len(student) * temperature**2
    assert float(soft_label_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-5)


def test_at_temperature_one_it_is_cross_entropy_less_the_teachers_entropy() -> None:
    student, teacher = random_logits(2), random_logits(3)
    certain = torch.softmax(teacher, dim=1)
    entropy = -(certain * certain.log()).sum(dim=1).mean()
    expected = functional.cross_entropy(student, certain) - entropy
    assert float(soft_label_loss(student, teacher, 1.0)) == pytest.approx(float(expected), rel=1e-5)


def test_at_high_temperature_its_gradient_is_the_difference_of_centred_logits() -> None:
    """Hinton et al. 2015, equation 4: (z - v) / N per row, after the multiplication by T^2."""
    student, teacher = random_logits(4, count=1).double(), random_logits(5, count=1).double()
    student, teacher = student - student.mean(), teacher - teacher.mean()
    student.requires_grad_()
    soft_label_loss(student, teacher, 1e4).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 5, rtol=1e-3, atol=1e-4)


def test_a_student_that_answers_as_its_teacher_has_no_loss() -> None:
    assert float(soft_label_loss(TEACHER, TEACHER, 4.0)) == pytest.approx(0.0, abs=1e-7)


def test_with_all_weight_on_labels_the_teacher_does_not_count() -> None:
    loss = TrainingLoss(Distillation(hard=1.0))(STUDENT, rows(torch.tensor([0]), TEACHER))
    assert float(loss) == pytest.approx(float(functional.cross_entropy(STUDENT, torch.tensor([0]))))


def test_with_no_weight_on_labels_only_the_teacher_counts() -> None:
    loss = TrainingLoss(Distillation(temperature=2.0, hard=0.0))(STUDENT, rows(torch.tensor([0]), TEACHER))
    assert float(loss) == pytest.approx(1.280627, abs=1e-5)


def test_the_mix_is_linear_in_the_weight_of_labels() -> None:
    hard = float(functional.cross_entropy(STUDENT, torch.tensor([0])))
    mixed = TrainingLoss(Distillation(temperature=2.0, hard=0.25))(STUDENT, rows(torch.tensor([0]), TEACHER))
    assert float(mixed) == pytest.approx(0.25 * hard + 0.75 * 1.280627, abs=1e-5)


def test_without_labels_the_teacher_has_all_the_weight() -> None:
    loss = TrainingLoss(Distillation(temperature=2.0, hard=0.9))(STUDENT, rows(teacher=TEACHER))
    assert float(loss) == pytest.approx(1.280627, abs=1e-5)


def test_a_single_value_is_taught_by_squared_error() -> None:
    loss = TrainingLoss()(torch.tensor([[1.0]]), rows(teacher=torch.tensor([[3.0]])))
    assert float(loss) == pytest.approx(4.0)


def test_float_labels_mean_regression() -> None:
    loss = TrainingLoss()(torch.tensor([[1.0, 2.0]]), rows(torch.tensor([[1.0, 4.0]])))
    assert float(loss) == pytest.approx(2.0)


def test_probabilities_are_taken_for_what_they_are() -> None:
    probabilities = torch.softmax(STUDENT, dim=1)
    loss = TrainingLoss()(probabilities, rows(torch.tensor([0])))
    assert float(loss) == pytest.approx(float(functional.cross_entropy(STUDENT, torch.tensor([0]))), rel=1e-5)


def test_logits_stay_as_they_are() -> None:
    assert as_logits(STUDENT) is STUDENT


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([3]), "from 3 to 3"),
        (torch.tensor([-1]), "from -1 to -1"),
        (torch.tensor([[0]]), "one label a sample"),
        (torch.tensor([0.5]), "one value for each output"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels: torch.Tensor, words: str) -> None:
    with pytest.raises(PassError, match=words):
        TrainingLoss()(STUDENT, rows(labels))


def whole(outputs: tuple[torch.Tensor, ...], **known: object) -> float:
    loss = TrainingLoss(Distillation(temperature=2.0, hard=0.25))
    return float(loss.of_all(outputs, Rows((torch.zeros(1, 1),), **known)))


def test_every_output_is_taught() -> None:
    """The mean of 1.280627 for the classes, and of 4 / 1, squared error over variance, for the values."""
    values, taught = torch.tensor([[[1.0], [1.0]]]), torch.tensor([[[2.0], [4.0]]])
    expected = (1.280627 + (1.0 + 9.0) / 2 / 1.0) / 2
    assert whole((STUDENT, values), teacher=(TEACHER, taught)) == pytest.approx(expected, abs=1e-5)


def test_outputs_of_integers_are_not_taught() -> None:
    best = torch.tensor([2])
    assert whole((best, STUDENT), teacher=(best, TEACHER)) == pytest.approx(1.280627, abs=1e-5)
    with pytest.raises(PassError, match="no output in floating point"):
        whole((best,), teacher=(best,))


def test_labels_are_compared_with_the_output_they_fit() -> None:
    features, labels = torch.zeros(1, 3, 2), torch.tensor([0])
    hard = float(functional.cross_entropy(STUDENT, labels))
    assert whole((features, STUDENT), labels=labels) == pytest.approx(hard)
    assert whole((STUDENT, torch.tensor([[1.0]])), labels=torch.tensor([[4.0]])) == pytest.approx(9.0)


def test_a_teacher_of_another_shape_is_told() -> None:
    with pytest.raises(PassError, match=r"with shape \(1, 3\) and the original with \(1, 2\)"):
        whole((STUDENT,), teacher=(torch.zeros(1, 2),))


def test_embeddings_of_length_one_are_values() -> None:
    one, other = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.8, -0.6]])
    assert whole((one,), teacher=(other,)) == pytest.approx((0.04 + 1.96) / 2)


def test_certain_probabilities_are_classes_all_the_same() -> None:
    """Their length is 1 as well."""
    assert classifies(torch.tensor([[1.0, 0.0]]), None)


def test_what_outputs_mean_can_be_said() -> None:
    loss = TrainingLoss(Distillation(matching=Matching.VALUES))
    assert float(loss(STUDENT, rows(teacher=TEACHER))) == pytest.approx((4 + 0 + 4) / 3)
    loss = TrainingLoss(Distillation(temperature=2.0, matching=Matching.CLASSES))
    unit = torch.tensor([[1.0, 0.0]])
    assert float(loss(unit, rows(teacher=unit))) == pytest.approx(0.0, abs=1e-7)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(PassError, match="labels or a teacher"):
        TrainingLoss()(STUDENT, rows())


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"hard": 1.1}, {"hard": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        Distillation(**settings)
