"""Removal of residual blocks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.passes.narrow.blocks import DropBlocks
from flyweight.compressor.passes.narrow.shortcuts import CalledBlock, blocks_by_call, blocks_by_graph
from flyweight.compressor.passes.narrow.tracing import traced
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings, seeded

MakeContext = Callable[..., Context]


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
    assert "Removed 1 of 3 residual blocks" in result.notes[0]
    assert ": blocks.1.inner (" in result.notes[0]
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
    named = [name in result.notes[0] for name in ("blocks.0 ", "blocks.1 ", "blocks.2 ")]
    assert named == [False, True, True]
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


def test_a_block_that_matters_stays_and_the_report_says_what_it_would_cost(
    images: DataSet, context: Context
) -> None:
    model = model_of(deep(), images)
    result = DropBlocks(blocks=2, max_harm=1e-12)(model, context)
    assert result.model is model
    assert not result.changed
    assert "without blocks.1.inner, the least harmful, the answers would move by" in result.notes[0]


def test_a_limit_keeps_the_blocks_that_matter(images: DataSet, context: Context) -> None:
    result = DropBlocks(blocks=2, max_harm=1e-3)(model_of(deep(), images), context)
    assert "Removed 1 of 3" in result.notes[0]


def test_blocks_can_be_removed_with_retraining_between(images: DataSet, make_context: MakeContext) -> None:
    module = deep()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = DropBlocks(2, training=TrainingSettings(epochs=1))(
        model_of(module, images), make_context(baseline=module)
    )
    assert "Removed 2 of 3" in result.notes[0]
    assert result.notes[-1].startswith("Trained on 400 samples")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_sum_of_two_branches_is_no_residual() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, rows: Tensor) -> Tensor:
            return self.left(rows) + self.right(rows)

    assert blocks_by_graph(traced(Two(), [torch.zeros(1, 4)])) == []


def test_a_branch_may_listen_to_a_mask_from_outside_but_not_to_what_x_came_from() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
            below = self.first(rows)
            middle = below + self.second(below) * (1 - mask)
            return middle + self.third(middle * below)

    found = blocks_by_graph(traced(Masked(), [torch.ones(2, 4), torch.zeros(2, 1)]))
    assert [block.name for block in found] == ["second"]


def test_a_part_takes_its_other_arguments_with_it() -> None:
    with seeded(0):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    tokens = torch.ones(2, 3, 8)
    less = CalledBlock("layers.1").removed_from(encoder)
    torch.testing.assert_close(less(tokens), encoder.layers[0](tokens))


def test_the_network_itself_is_no_part() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
            self.small = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 4))

        def forward(self, rows: Tensor) -> Tensor:
            return self.small(self.body(rows))

    found = blocks_by_call(Wrapped(), [torch.zeros(1, 4)])
    assert [block.name for block in found] == ["small"]


def test_a_module_that_relies_on_its_parts_is_left_alone(images: DataSet, context: Context) -> None:
    class Relying(Deep):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) + sum(block.inner.bias.sum() for block in self.blocks)

    with seeded(0):
        model = model_of(Relying(branching=True).eval(), images)
    result = DropBlocks()(model, context)
    assert not result.changed
    assert "would move by inf" in result.notes[0]


def test_measuring_stops_when_the_time_is_up(images: DataSet, make_context: MakeContext) -> None:
    with pytest.raises(OutOfTimeError):
        DropBlocks()(model_of(deep(), images), make_context(deadline=0.0))


@pytest.mark.parametrize(
    ("options", "word"), [({"blocks": 0}, "number of blocks"), ({"max_harm": 0.0}, "harm")]
)
def test_impossible_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        DropBlocks(**options)
