"""Merging of layers: fewer of them, the same answers."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.narrow.fusion import Fuse
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import seeded


def livened(module: nn.Module) -> nn.Module:
    """Give normalisation statistics that are not trivial."""
    with seeded(3):
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


class Branches(nn.Module):
    """A block as RepVGG trains it: 3x3, 1x1 and identity, each with its normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(4)
        self.small = nn.Conv2d(4, 4, 1, bias=True)
        self.small_norm = nn.BatchNorm2d(4)
        self.identity_norm = nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        sums = self.wide_norm(self.wide(image)) + self.small_norm(self.small(image))
        return torch.relu(sums + self.identity_norm(image))


def same(model: Model, context: Context) -> nn.Module:
    before = copy.deepcopy(model.torch_module())
    result = Fuse()(model, context)
    made = result.model.torch_module()
    inputs = [torch.randn(6, *array.shape[1:]) for array in model.example.values()]
    with torch.no_grad():
        torch.testing.assert_close(made(*inputs), before(*inputs), rtol=1e-4, atol=1e-5)
    return made


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.modules() if not list(layer.children())]


def example(*shape: int) -> DataSet:
    return DataSet({"image": np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)})


def test_a_block_of_three_branches_becomes_one_convolution(context: Context) -> None:
    with seeded(0):
        model = model_of(livened(Branches()), example(4, 6, 6))
    made = same(model, context)
    assert kinds(made) == ["Conv2d"]
    assert "3 pairs" not in Fuse()(model, context).notes[0]
    assert (
        "Merged 2 normalisations into the layers before them, 2 pairs of parallel"
        in Fuse()(model, context).notes[0]
    )


def test_the_kernel_of_convolution_and_identity_by_hand(context: Context) -> None:
    class Plus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image) + image

    with seeded(0):
        model = model_of(Plus(), example(2, 5, 5))
    expected = model.torch_module().conv.weight.detach().clone()
    expected[0, 0, 1, 1] += 1.0
    expected[1, 1, 1, 1] += 1.0
    made = same(model, context)
    torch.testing.assert_close(made.get_parameter("conv.weight").detach(), expected)


def test_normalisation_is_folded_into_linear_layers_too(context: Context) -> None:
    with seeded(0):
        module = livened(nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU()))
    assert kinds(same(model_of(module, example(1, 3, 3)), context)) == ["Flatten", "Linear", "ReLU"]


def test_linear_layers_in_a_row_are_multiplied_where_that_is_not_larger(context: Context) -> None:
    with seeded(0):
        wide = nn.Sequential(nn.Flatten(), nn.Linear(9, 32), nn.Linear(32, 4))
        low_rank = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False), nn.Linear(2, 36))
    assert kinds(same(model_of(wide, example(1, 3, 3)), context)) == ["Flatten", "Linear"]
    result = Fuse()(model_of(low_rank, example(1, 6, 6)), context)
    assert not result.changed


def test_residual_blocks_stay(residual: nn.Module, images: DataSet, context: Context) -> None:
    """Their branches have other inputs: only the normalisation goes."""
    assert kinds(same(model_of(residual, images), context)).count("Conv2d") == 3


def test_a_layer_that_is_read_twice_is_not_merged(context: Context) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, image: Tensor) -> Tensor:
            features = self.conv(image)
            return self.norm(features) * features

    with seeded(0):
        model = model_of(livened(Twice()), example(2, 3, 3))
    assert not Fuse()(model, context).changed


def test_a_module_that_branches_on_its_input_is_told(images: DataSet, context: Context) -> None:
    class Branching(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(PassError, match=r"cannot be traced.*exported ONNX file"):
        Fuse()(model_of(Branching(), images), context)
