"""The passes that make a module smaller."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.narrow.width import NarrowWidth, initialise
from flyweight.compressor.passes.prune.structured import (
    ChannelImportance,
    StructuredPrune,
    count_parameters,
)
from flyweight.compressor.torch_model import model_of


def multiply_adds(module: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 1, 8, 8))
    return counter.get_total_flops() // 2


def test_half_the_channels_are_a_quarter_of_the_multiply_adds(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    result = StructuredPrune(0.5)(model_of(residual, images), context)
    pruned = result.model.torch_module()
    # At 8x8: the stem's 9*32, two inner layers of 9*32*32, the head's 32*4; then with 16 for 32.
    assert multiply_adds(residual) == 64 * (9 * 32 + 2 * 9 * 32 * 32) + 32 * 4
    assert multiply_adds(pruned) == 64 * (9 * 16 + 2 * 9 * 16 * 16) + 16 * 4
    assert result.changed
    assert f"{count_parameters(residual):,} to {count_parameters(pruned):,}" in result.notes[0]


def test_pruning_nothing_changes_nothing(residual: nn.Module, images: DataSet, context: Context) -> None:
    model = model_of(residual, images)
    result = StructuredPrune(0.0)(model, context)
    assert result.model is model
    assert not result.changed


def test_a_network_too_narrow_to_prune_is_left_alone(images: DataSet, context: Context) -> None:
    model = model_of(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(288, 4)), images)
    result = StructuredPrune(0.5)(model, context)
    assert result.model is model
    assert not result.changed


def test_taylor_importance_uses_labels(residual: nn.Module, images: DataSet, context: Context) -> None:
    result = StructuredPrune(0.5, ChannelImportance.TAYLOR)(model_of(residual, images), context)
    assert result.changed
    assert all(parameter.grad is None for parameter in residual.parameters())


def test_taylor_importance_needs_no_labels(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    unlabelled = DataSet(images.inputs)
    result = StructuredPrune(0.5, ChannelImportance.TAYLOR)(
        model_of(residual, unlabelled), make_context(training=None, calibration=unlabelled)
    )
    assert result.changed


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_an_impossible_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(RecipeError, match="ratio"):
        StructuredPrune(ratio)


def test_a_student_is_narrow_and_starts_from_the_original(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    student = NarrowWidth(0.5)(model_of(residual, images), context).model.torch_module()
    filters = {tuple(row.flatten().tolist()) for row in residual.stem.weight.detach()}
    assert student.stem.out_channels == 16
    assert all(tuple(row.flatten().tolist()) in filters for row in student.stem.weight.detach())


def test_a_student_can_start_afresh_and_alike_for_the_same_seed(
    residual: nn.Module, images: DataSet, context: Context
) -> None:
    model = model_of(residual, images)
    one = NarrowWidth(0.5, warm_start=False)(model, context).model.torch_module()
    other = NarrowWidth(0.5, warm_start=False)(model, context).model.torch_module()
    filters = {tuple(row.flatten().tolist()) for row in residual.stem.weight.detach()}
    assert not any(tuple(row.flatten().tolist()) in filters for row in one.stem.weight.detach())
    assert torch.equal(one.stem.weight, other.stem.weight)


def test_parameters_without_an_initialiser_are_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.linear = nn.Linear(2, 2)

    assert initialise(Scaled()) == ["scale"]


@pytest.mark.parametrize("width", [0.0, 1.5])
def test_an_impossible_width_is_refused(width: float) -> None:
    with pytest.raises(RecipeError, match="width"):
        NarrowWidth(width)
