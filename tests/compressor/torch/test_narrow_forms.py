"""Other forms of layers: separable convolutions, strides for pooling, other activations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.narrow.activations import Activation, ReplaceActivations
from flyweight.compressor.passes.narrow.separation import Separate, separable_factors
from flyweight.compressor.passes.narrow.strides import Place, PoolToStride
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import seeded


def composed(filters: Tensor, mixing: Tensor, inner: int) -> Tensor:
    """Return the dense kernel that a depthwise and a pointwise convolution are together."""
    height, width = filters.shape[2:]
    by_channel = filters.view(inner, -1, height, width)
    return torch.einsum("imhw,oim->oihw", by_channel, mixing.view(len(mixing), inner, -1))


def test_a_separable_kernel_is_found_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    filters, mixing = torch.randn(5, 3, 3, generator=generator), torch.randn(7, 5, generator=generator)
    kernel = torch.einsum("ihw,oi->oihw", filters, mixing)
    torch.testing.assert_close(composed(*separable_factors(kernel, 1), 5), kernel, rtol=1e-4, atol=1e-5)


def test_the_error_is_the_singular_values_left_out_channel_by_channel() -> None:
    kernel = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    for count in (1, 2, 9):
        lost = (kernel - composed(*separable_factors(kernel, count), 4)).pow(2).sum()
        values = torch.linalg.svdvals(kernel.permute(1, 0, 2, 3).reshape(4, 8, 9))
        assert float(lost) == pytest.approx(float(values[:, count:].pow(2).sum()), abs=1e-4)


def test_with_as_many_filters_as_places_nothing_is_lost() -> None:
    kernel = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(composed(*separable_factors(kernel, 4), 2), kernel, rtol=1e-4, atol=1e-5)


def test_convolutions_are_separated_and_keep_their_geometry(images: DataSet, context: Context) -> None:
    with seeded(0):
        module = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=2, dilation=2)
        )
    model = model_of(module, images)
    result = Separate(layers=("2",))(model, context)
    made = result.model.torch_module()
    assert isinstance(made[0], nn.Conv2d)
    assert [layer.groups for layer in made[2]] == [16, 1]
    image = torch.from_numpy(images.inputs["image"][:3])
    assert made(image).shape == module(image).shape
    closer = Separate(layers=("2",), multiplier=6)(model, context).model.torch_module()
    with torch.no_grad():
        near, far = ((other(image) - module(image)).abs().max() for other in (closer, made))
    assert near < far / 2


def test_small_kernels_are_left_alone_and_unknown_names_told(images: DataSet, context: Context) -> None:
    model = model_of(nn.Sequential(nn.Conv2d(1, 8, 1)), images)
    assert not Separate()(model, context).changed
    with pytest.raises(PassError, match="called like"):
        Separate(layers=("stem*",))(model, context)
    with pytest.raises(RecipeError):
        Separate(multiplier=0)


def pooled() -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AvgPool2d(2),
        )


@pytest.mark.parametrize(("place", "strided"), [(Place.FIRST, ["0", "6"]), (Place.LAST, ["3", "6"])])
def test_poolings_become_strides(images: DataSet, context: Context, place: Place, strided: list[str]) -> None:
    model = model_of(pooled(), images)
    made = PoolToStride(place)(model, context).model.torch_module()
    found = [name for name, layer in made.named_modules() if getattr(layer, "stride", 0) == (2, 2)]
    assert found == strided
    image = torch.from_numpy(images.inputs["image"][:3])
    assert made(image).shape == model.torch_module()(image).shape
    assert not any(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in made.modules())


def test_only_so_many_poolings_as_asked_for(images: DataSet, context: Context) -> None:
    made = PoolToStride(pools=1)(model_of(pooled(), images), context).model.torch_module()
    assert [type(layer).__name__ for layer in made.children()].count("AvgPool2d") == 1


def test_a_pooling_that_rounds_down_where_a_stride_rounds_up_stays(context: Context) -> None:
    """Of 7 places pooling makes 3, a padded convolution with a stride 4."""
    data = DataSet({"image": np.zeros((2, 1, 7, 7), np.float32)})
    model = model_of(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2)), data)
    with pytest.raises(PassError, match="leave pool-to-stride out"):
        PoolToStride()(model, context)
    with pytest.raises(RecipeError):
        PoolToStride(pools=-1)


class Written(nn.Module):
    """SiLU and GELU as exporters write them, a call of SiLU, a layer of it, and a gate that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.SiLU()
        self.register_buffer("part", torch.tensor(0.5))

    def forward(self, image: Tensor) -> Tensor:
        one = image * torch.sigmoid(image)
        two = self.part * one * (1.0 + torch.erf(one / math.sqrt(2.0)))
        three = functional.silu(two) + functional.gelu(two)
        return self.layer(three) * torch.sigmoid(image - three)


def test_activations_are_found_however_they_are_written(images: DataSet, context: Context) -> None:
    result = ReplaceActivations()(model_of(Written(), images), context)
    assert result.notes[0].startswith("5 activations became relu")
    image = torch.from_numpy(images.inputs["image"][:3])
    two = torch.relu(torch.relu(image))
    three = two + two
    torch.testing.assert_close(
        result.model.torch_module()(image), torch.relu(three) * torch.sigmoid(image - three)
    )


def test_hard_swish_is_replaced_by_relu_only(images: DataSet, context: Context) -> None:
    model = model_of(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Hardswish()), images)
    assert not ReplaceActivations(Activation.HARD_SWISH)(model, context).changed
    assert ReplaceActivations(Activation.RELU)(model, context).changed
    smooth = model_of(nn.Sequential(nn.Conv2d(1, 4, 1), nn.GELU()), images)
    made = ReplaceActivations(Activation.HARD_SWISH)(smooth, context).model.torch_module()
    assert any(isinstance(layer, nn.Hardswish) for layer in made.modules())
