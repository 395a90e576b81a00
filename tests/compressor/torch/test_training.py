"""The trainer."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError, PassError, RecipeError
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.training import (
    Optimizer,
    Rows,
    TrainingSettings,
    answers,
    learning_rate_at,
    output_of,
    restore_statistics,
    rows_of,
    seeded,
    tensor_of,
    threads,
    train,
)

QUICK = TrainingSettings(epochs=3, batch_rows=32)
CPU = torch.device("cpu")


def accuracy(module: nn.Module, data: DataSet) -> float:
    found = answers(module, rows_of(data, ["image"]).inputs).argmax(dim=1)
    return float((found == torch.from_numpy(data.labels)).float().mean())


def test_it_learns(residual: nn.Module, images: DataSet, context: Context) -> None:
    trained = train(residual, rows_of(images, ["image"]), TrainingLoss(), QUICK, context)
    assert trained.best_loss < trained.first_loss / 2
    assert trained.held_out_rows == 40
    assert accuracy(residual, images) > 0.95
    assert not residual.training


def test_sgd_learns_too(residual: nn.Module, images: DataSet, context: Context) -> None:
    settings = TrainingSettings(epochs=3, batch_rows=32, learning_rate=0.05, optimizer=Optimizer.SGD)
    train(residual, rows_of(images, ["image"]), TrainingLoss(), settings, context)
    assert accuracy(residual, images) > 0.95


def test_the_same_seed_gives_the_same_weights(residual: nn.Module, images: DataSet, context: Context) -> None:
    other = copy.deepcopy(residual)
    for module in (residual, other):
        train(module, rows_of(images, ["image"]), TrainingLoss(), QUICK, context)
    for name, value in residual.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_another_seed_gives_other_weights(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    other = copy.deepcopy(residual)
    train(residual, rows_of(images, ["image"]), TrainingLoss(), QUICK, make_context(seed=0))
    train(other, rows_of(images, ["image"]), TrainingLoss(), QUICK, make_context(seed=1))
    assert not torch.equal(residual.state_dict()["head.weight"], other.state_dict()["head.weight"])


def test_it_never_ends_worse_than_it_began(residual: nn.Module, images: DataSet, context: Context) -> None:
    """The weights it came with count as epoch 0, so an absurd learning rate ruins nothing."""
    train(residual, rows_of(images, ["image"]), TrainingLoss(), QUICK, context)
    before = copy.deepcopy(residual.state_dict())
    absurd = TrainingSettings(epochs=1, batch_rows=32, learning_rate=10.0)
    trained = train(residual, rows_of(images, ["image"]), TrainingLoss(), absurd, context)
    assert trained.best_epoch == 0
    assert trained.best_loss == trained.first_loss
    assert torch.equal(residual.state_dict()["head.weight"], before["head.weight"])


def test_few_rows_are_all_trained_on(residual: nn.Module, images: DataSet, context: Context) -> None:
    trained = train(residual, rows_of(images.first(100), ["image"]), TrainingLoss(), QUICK, context)
    assert trained.held_out_rows == 0
    assert trained.best_epoch == 3


def test_divergence_is_told(residual: nn.Module, images: DataSet, context: Context) -> None:
    data = DataSet(
        {"image": images.inputs["image"][:64]}, images.labels[:64].astype(np.float32)[:, None] * 1e30
    )
    headless = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    settings = TrainingSettings(epochs=2, batch_rows=32, learning_rate=1e9)
    with pytest.raises(PassError, match="diverged in epoch 1"):
        train(headless, rows_of(data, ["image"]), TrainingLoss(), settings, context)


def test_one_row_is_too_few(residual: nn.Module, images: DataSet, context: Context) -> None:
    with pytest.raises(PassError, match="at least two samples"):
        train(residual, rows_of(images.first(1), ["image"]), TrainingLoss(), QUICK, context)


def test_progress_reaches_its_total(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    told: list[tuple[str, int, int]] = []
    context = make_context(progress=lambda what, done, total: told.append((what, done, total)))
    train(residual, rows_of(images.first(64), ["image"]), TrainingLoss(), QUICK, context)
    assert told == [("training", done, 3) for done in range(4)]


def test_threads_and_randomness_of_the_caller_are_left_alone() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    with threads(before + 1), seeded(7):
        assert torch.get_num_threads() == before + 1
        torch.rand(1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_statistics_become_those_of_the_rows() -> None:
    """In a single batch the mean and the unbiased variance of the rows, by definition."""
    rows = Rows((torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 2 + 5,))
    module = nn.Sequential(nn.BatchNorm1d(3, momentum=0.01)).eval()
    restore_statistics(module, rows, CPU)
    layer = module[0]
    assert isinstance(layer, nn.BatchNorm1d)
    torch.testing.assert_close(layer.running_mean, rows.inputs[0].mean(dim=0))
    torch.testing.assert_close(layer.running_var, rows.inputs[0].var(dim=0))
    assert layer.momentum == 0.01
    assert not layer.training


def test_the_rate_rises_linearly_and_falls_along_a_cosine_to_nearly_zero() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate_at(step, 10, settings) for step in range(10)]
    expected = [0.5, 1.0, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    assert rates == pytest.approx(expected, abs=1e-4)


def test_without_warm_up_the_rate_begins_at_its_peak() -> None:
    assert learning_rate_at(0, 10, TrainingSettings(learning_rate=0.3, warmup=0.0)) == 0.3


def test_rows_keep_the_order_of_the_names_asked_for() -> None:
    data = DataSet({"a": np.zeros((2, 1), np.float32), "b": np.ones((2, 1), np.float32)}, np.array([0, 1]))
    assert [float(tensor[0]) for tensor in rows_of(data, ["b", "a"]).inputs] == [1.0, 0.0]
    with pytest.raises(PassError, match="'c'"):
        rows_of(data, ["c"])


def test_read_only_arrays_are_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    array.flags.writeable = False
    tensor = tensor_of(array)
    tensor += 1
    assert not array.any()


def test_the_first_of_several_outputs_is_trained_on() -> None:
    first, second = torch.zeros(1), torch.ones(1)
    assert output_of((first, second)) is first
    assert output_of({"a": first, "b": second}) is first
    with pytest.raises(ModelError, match="must return tensors"):
        output_of("nothing")


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"batch_rows": 1}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"held_out": 0.6}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        TrainingSettings(**settings)
