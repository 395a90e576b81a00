"""What callers of the trainer may do in its loop, and what it does about time, halves and frozen layers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.training import (
    Rows,
    TrainingHooks,
    TrainingSettings,
    WholeLoss,
    all_answers,
    rows_of,
    seeded,
    taught,
    train,
    trainer,
)
from flyweight.compressor.training.schedule import epochs_in_time

QUICK = TrainingSettings(epochs=2, batch_rows=32)


@pytest.fixture
def rows(images: DataSet) -> Rows:
    return rows_of(images.first(128), ["image"])


def linear() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def test_after_every_step_the_caller_acts_and_before_the_first(rows: Rows, context: Context) -> None:
    """As a mask of pruned weights does: what was zero is zero at the end, and was so at every step."""
    calls = list[float]()

    def mask(module: nn.Module) -> None:
        weight = module.get_parameter("1.weight")
        with torch.no_grad():
            weight[:, :32] = 0.0
        calls.append(float(weight.detach().abs().sum()))

    module = linear()
    train(module, rows, TrainingLoss(), QUICK, context, TrainingHooks(after_step=mask))
    assert len(calls) == 1 + 2 * (128 // 32)
    weight = module.get_parameter("1.weight").detach()
    assert not weight[:, :32].any()
    assert weight[:, 32:].all()


def test_rows_of_a_step_may_be_changed(rows: Rows, context: Context) -> None:
    seen = list[Tensor]()

    def double(drawn: Rows, generator: torch.Generator) -> Rows:
        assert isinstance(generator, torch.Generator)
        return Rows((drawn.inputs[0] * 2,), drawn.labels)

    def loss(outputs: Tensor, answered: Rows) -> Tensor:
        seen.append(answered.inputs[0].abs().max())
        return outputs.square().mean()

    train(linear(), rows, loss, QUICK, context, TrainingHooks(before_step=double))
    assert max(seen) == 2 * rows.inputs[0].abs().max()


def test_further_parameters_are_trained_too(rows: Rows, context: Context) -> None:
    scale = nn.Parameter(torch.ones(()))

    def loss(outputs: Tensor, _rows: Rows) -> Tensor:
        return (outputs * scale).square().mean()

    train(linear(), rows, loss, QUICK, context, TrainingHooks(parameters=(scale,)))
    assert float(scale.detach()) < 1.0


def test_a_whole_loss_gets_every_output(rows: Rows, context: Context) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 4)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            features = self.layer(image.flatten(1))
            return features, features.sum(dim=1)

    class Count(WholeLoss):
        def of_all(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
            assert [tuple(output.shape[1:]) for output in outputs] == [(4,), ()]
            return outputs[1].square().mean()

    trained = train(Two(), rows, Count(), QUICK, context)
    assert trained.best_loss < 10


def test_the_deadline_keeps_the_best_epoch(
    rows: Rows, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time runs out in the middle of the second epoch."""
    checks = iter(range(1000))
    module, untrained = linear(), linear()

    def check(_context: Context) -> None:
        if next(checks) == 6:
            raise OutOfTimeError("The time limit came.")

    monkeypatch.setattr(Context, "check_time", check)
    trained = train(module, rows, TrainingLoss(), QUICK, context)
    assert (trained.best_epoch, trained.epochs, trained.out_of_time) == (1, 1, True)
    assert not torch.equal(module.get_parameter("1.weight"), untrained.get_parameter("1.weight"))


def test_before_the_first_epoch_is_done_there_is_nothing_to_keep(
    rows: Rows, make_context: Callable[..., Context]
) -> None:
    with pytest.raises(OutOfTimeError):
        train(linear(), rows, TrainingLoss(), QUICK, make_context(deadline=0.0))


def test_fewer_epochs_are_planned_when_time_is_short(
    rows: Rows, make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "epochs_in_time", lambda done, *_: min(3, max(done, 3)))
    settings = TrainingSettings(epochs=9, batch_rows=64)
    trained = train(linear(), rows, TrainingLoss(), settings, make_context())
    assert (trained.epochs, trained.out_of_time) == (3, True)


def test_how_many_epochs_fit() -> None:
    """One took 10 s: of 35 s left, nine tenths are three more."""
    assert epochs_in_time(1, 16, 10.0, 35.0) == 4
    assert epochs_in_time(1, 16, 10.0, 5.0) == 1
    assert epochs_in_time(1, 3, 10.0, 1000.0) == 3
    assert epochs_in_time(1, 16, 10.0, float("inf")) == 16


def test_halves_are_trained_in_single_precision_and_stay_halves(images: DataSet, context: Context) -> None:
    module = linear().half()
    rows = rows_of(images, ["image"]).map(lambda t: t.half() if t.is_floating_point() else t)
    trained = train(module, taught(rows, linear().half()), TrainingLoss(), QUICK, context)
    assert trained.best_loss < trained.first_loss
    assert module.get_parameter("1.weight").dtype == torch.float16


def frozen_body(residual: nn.Module) -> nn.Module:
    for name, parameter in residual.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    return residual


def test_frozen_layers_and_their_statistics_stay(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    before = copy.deepcopy(residual.state_dict())
    train(frozen_body(residual), rows_of(images, ["image"]), TrainingLoss(), QUICK, context)
    changed = {name for name, value in residual.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_a_module_that_is_frozen_whole_is_thawed(rows: Rows, context: Context) -> None:
    """Its owner only prepared it for inference."""
    module = linear().requires_grad_(False)
    before = module.get_parameter("1.weight").clone()
    train(module, rows, TrainingLoss(), QUICK, context)
    assert not torch.equal(module.get_parameter("1.weight"), before)


def test_a_module_without_weights_is_told(rows: Rows, context: Context) -> None:
    with pytest.raises(PassError, match="no weights in floating point"):
        train(nn.Flatten(), rows, TrainingLoss(), QUICK, context)


def test_every_output_of_a_teacher_is_asked_for(rows: Rows) -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return image.flatten(1), image.mean(dim=(1, 2, 3))

    asked = list[int]()
    answered = taught(rows, Two(), between=lambda: asked.append(1))
    assert answered.teacher is not None
    assert [tuple(part.shape) for part in answered.teacher] == [(128, 64), (128,)]
    assert asked == [1]
    assert len(all_answers(Two(), rows.inputs, batch_rows=50)[1]) == 128
