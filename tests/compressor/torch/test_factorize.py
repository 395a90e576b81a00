"""Factorisation of torch modules."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.factorize.layers import Scheme
from flyweight.compressor.passes.factorize.modules import Factorize
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import answers, rows_of, seeded


@pytest.fixture
def model(images: DataSet) -> Model:
    with seeded(0):
        module = nn.Sequential(
            nn.Conv2d(1, 32, (3, 5), stride=(1, 2), padding=(1, 2)),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=2, dilation=2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 8 * 4, 48),
        )
    return model_of(module, images)


def difference(one: Model, other: Model, data: DataSet) -> float:
    inputs = rows_of(data, ["image"]).inputs
    expected, found = (answers(model.torch_module(), inputs) for model in (one, other))
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("aware", [False, True])
def test_all_but_full_rank_is_nearly_the_same(
    model: Model, images: DataSet, context: Context, scheme: Scheme, aware: bool
) -> None:
    """With ranks to choose one by one and all but a thousandth of the energy, geometry must be right."""
    result = Factorize(energy=0.999, scheme=scheme, aware=aware, round_to=1)(model, context)
    assert difference(model, result.model, images) < 0.06


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_budget_makes_the_module_smaller(
    model: Model, images: DataSet, context: Context, scheme: Scheme
) -> None:
    result = Factorize(budget=0.6, scheme=scheme)(model, context)
    sizes = [sum(p.numel() for p in m.torch_module().parameters()) for m in (model, result.model)]
    assert sizes[1] < sizes[0]
    assert isinstance(model.torch_module()[2], nn.Conv2d), "the model that was given stays whole"
    assert difference(model, result.model, images) < 0.8


def test_following_answers_loses_less(model: Model, images: DataSet, context: Context) -> None:
    lost = [
        difference(model, Factorize(budget=0.6, aware=aware)(model, context).model, images)
        for aware in (False, True)
    ]
    assert lost[1] < 0.8 * lost[0]


def test_a_layer_used_twice_stays_one_layer(images: DataSet, context: Context) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.first.weight.data = (torch.randn(64, 8) @ torch.randn(8, 64)) / 20
            self.second = self.first

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(image.flatten(1))))

    with seeded(0):
        model = model_of(Shared(), images)
    result = Factorize(energy=0.999)(model, context)
    made = result.model.torch_module()
    assert made.first is made.second
    assert isinstance(made.first, nn.Sequential)
    assert difference(model, result.model, images) < 0.05


def test_a_layer_whose_weight_is_read_by_others_is_left_alone(images: DataSet, context: Context) -> None:
    """Attention multiplies with the weight of its output layer itself, without calling it."""
    with seeded(0):
        attention = nn.MultiheadAttention(64, 4, batch_first=True)

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = image.flatten(1).unsqueeze(1)
            return self.attention(tokens, tokens, tokens)[0]

    result = Factorize(energy=0.5)(model_of(Attending(), images), context)
    assert not result.changed


def test_code_that_reads_a_layers_weight_is_told(images: DataSet, context: Context) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image.flatten(1)) * self.layer.weight.shape[0]

    with pytest.raises(PassError, match="does not work with factorised layers"):
        Factorize(energy=0.3)(model_of(Reading(), images), context)


def test_a_module_without_thick_layers_is_left_alone(residual: nn.Module, context: Context) -> None:
    model = Model(module=residual, example={"image": np.zeros((1, 1, 8, 8), np.float32)})
    result = Factorize(energy=0.999)(model, context)
    assert not result.changed
    assert result.model is model


def test_it_ends_with_its_time(model: Model, make_context: Callable[..., Context]) -> None:
    with pytest.raises(OutOfTimeError):
        Factorize()(model, make_context(deadline=0.0))


@pytest.mark.parametrize("options", [{"energy": 0.0}, {"budget": 2.0}, {"round_to": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        Factorize(**options)


def test_halves_stay_halves(model: Model, images: DataSet, make_context: Callable[..., Context]) -> None:
    half = DataSet({"image": images.inputs["image"].astype(np.float16)}, images.labels)
    halved = model_of(model.torch_module().half(), half)
    result = Factorize(budget=0.6)(halved, make_context(calibration=half, training=half))
    assert {p.dtype for p in result.model.torch_module().parameters()} == {torch.float16}
