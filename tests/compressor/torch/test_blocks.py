"""Removal of residual blocks."""

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.narrow.blocks import DropBlocks
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import seeded


class Block(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.inner.weight.data *= scale
        self.inner.bias.data *= scale

    def forward(self, features: Tensor) -> Tensor:
        return features + torch.relu(self.inner(features))


class Deep(nn.Module):
    """Three residual blocks of which the second does next to nothing."""

    def __init__(self, branching: bool = False) -> None:
        super().__init__()
        self.branching = branching
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Block(scale) for scale in (2.0, 0.001, 1.0))
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        for block in self.blocks:
            features = block(features)
        if self.branching and bool(features.isnan().any()):
            features = torch.zeros_like(features)
        return self.head(features.mean(dim=(2, 3)))


def deep(*, branching: bool = False) -> Deep:
    with seeded(0):
        return Deep(branching).eval()


def test_the_block_that_does_least_goes(images: DataSet, context: Context) -> None:
    model = model_of(deep(), images)
    result = DropBlocks()(model, context)
    made = result.model.torch_module()
    assert "Removed 1 of 3 residual blocks (blocks.1.inner)" in result.notes[0]
    assert "blocks.1.inner" not in dict(made.named_modules())
    image = torch.from_numpy(images.inputs["image"][:8])
    torch.testing.assert_close(made(image), model.torch_module()(image), atol=5e-3, rtol=0)
    assert len(list(model.torch_module().parameters())) == 10, "the model that was given stays whole"


def test_at_least_one_block_stays(images: DataSet, context: Context) -> None:
    made = DropBlocks(blocks=9)(model_of(deep(), images), context).model.torch_module()
    assert isinstance(made, fx.GraphModule)
    assert [name for name in dict(made.named_modules()) if name.endswith("inner")] == ["blocks.2.inner"]


def test_a_module_that_cannot_be_traced_loses_parts(images: DataSet, context: Context) -> None:
    model = model_of(deep(branching=True), images)
    result = DropBlocks(blocks=2)(model, context)
    assert "(blocks.1, blocks.2)" in result.notes[0]
    image = torch.from_numpy(images.inputs["image"][:8])
    whole = deep()
    expected = whole.head(whole.blocks[0](whole.stem(image)).mean(dim=(2, 3)))
    torch.testing.assert_close(result.model.torch_module()(image), expected)


def test_one_block_is_too_few(residual: nn.Module, images: DataSet, context: Context) -> None:
    with pytest.raises(PassError, match="1 residual block only"):
        DropBlocks()(model_of(residual, images), context)


def test_a_plain_network_has_none(images: DataSet, context: Context) -> None:
    with pytest.raises(PassError, match="no residual block"):
        DropBlocks()(model_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), images), context)


def test_no_blocks_are_no_request() -> None:
    with pytest.raises(RecipeError):
        DropBlocks(blocks=0)
