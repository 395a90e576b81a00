"""The passes that train."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.passes.distill.soft_labels import FineTune, SoftLabelDistillation
from flyweight.compressor.passes.prune.structured import StructuredPrune
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import (
    TrainingSettings,
    all_answers,
    answers,
    rows_of,
    seeded,
    train,
    trainer,
)

SETTINGS = TrainingSettings(epochs=3, batch_rows=32)


@pytest.fixture
def teacher(residual: nn.Module, images: DataSet, context: Context) -> nn.Module:
    train(residual, rows_of(images, ["image"]), TrainingLoss(), SETTINGS, context)
    return residual


def agreement(one: nn.Module, other: nn.Module, data: DataSet) -> float:
    inputs = rows_of(data, ["image"]).inputs
    return float((answers(one, inputs).argmax(dim=1) == answers(other, inputs).argmax(dim=1)).float().mean())


def test_without_labels_a_cut_network_learns_to_agree_with_the_original(
    teacher: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    unlabelled = DataSet(images.inputs)
    context = make_context(calibration=unlabelled, training=None, baseline=teacher)
    pruned = StructuredPrune(0.5)(model_of(teacher, unlabelled), context).model
    result = FineTune(SETTINGS)(pruned, context)
    assert agreement(pruned.torch_module(), teacher, images) < 0.9
    assert agreement(result.model.torch_module(), teacher, images) > 0.95
    assert "the original's answers" in result.notes[0]
    assert "labels" not in result.notes[0]


def test_without_a_teacher_labels_are_enough(residual: nn.Module, images: DataSet, context: Context) -> None:
    result = FineTune(SETTINGS)(model_of(residual, images), context)
    assert "with labels for 3 epochs" in result.notes[0]
    found = answers(result.model.torch_module(), rows_of(images, ["image"]).inputs).argmax(dim=1)
    assert float((found == torch.from_numpy(images.labels)).float().mean()) > 0.95


def test_with_neither_labels_nor_teacher_it_says_so(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    unlabelled = DataSet(images.inputs)
    context = make_context(calibration=unlabelled, training=None)
    with pytest.raises(PassError, match="give labelled data"):
        FineTune(SETTINGS)(model_of(residual, unlabelled), context)


def test_the_model_it_was_given_keeps_its_weights(
    teacher: nn.Module, images: DataSet, context: Context
) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    model = model_of(teacher, images)
    SoftLabelDistillation(SETTINGS, Distillation(temperature=2.0))(model, context)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_equal_passes_are_one_key() -> None:
    """What lets a memo know a training that was done."""
    assert FineTune(SETTINGS) == FineTune(TrainingSettings(epochs=3, batch_rows=32))
    assert hash(FineTune(SETTINGS)) == hash(FineTune(TrainingSettings(epochs=3, batch_rows=32)))
    assert FineTune(SETTINGS) != SoftLabelDistillation(SETTINGS)


def test_all_outputs_are_learnt_from_the_original(
    images: DataSet, make_context: Callable[..., Context]
) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 3), nn.Linear(64, 2)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            flat = image.flatten(1)
            return {"scores": self.first(flat), "values": self.second(flat).tanh()[:, :, None]}

    with seeded(0):
        original, student = Two(), Two()
    unlabelled = DataSet(images.inputs)
    context = make_context(calibration=unlabelled, training=None, baseline=original)
    model = model_of(student, unlabelled)
    result = SoftLabelDistillation(TrainingSettings(epochs=15, batch_rows=32, learning_rate=5e-3))(
        model, context
    )
    inputs = rows_of(unlabelled, ["image"]).inputs
    wanted = all_answers(original, inputs)

    def errors(module: nn.Module) -> list[float]:
        found = all_answers(module, inputs)
        return [float((one - aim).square().mean()) for one, aim in zip(found, wanted, strict=True)]

    before, after = errors(student), errors(result.model.torch_module())
    assert after[0] < before[0] / 2
    assert after[1] < before[1] / 2


def test_a_training_that_ran_out_of_time_says_so(
    teacher: nn.Module, images: DataSet, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "epochs_in_time", lambda *_: 1)
    result = FineTune(SETTINGS)(model_of(teacher, images), context)
    assert "for 1 epochs (of 3: the time limit came)" in result.notes[0]
