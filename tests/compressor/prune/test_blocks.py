"""Whole blocks: those that the answers change least without go."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.passes.prune.blocks import PruneBlocks, without
from flyweight.compressor.passes.prune.skips import ModuleSkip, SumSkip, find_skips
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings

MakeContext = Callable[..., Context]


class Residual(nn.Module):
    def __init__(self, strength: float) -> None:
        super().__init__()
        self.wide, self.narrow, self.strength = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1), strength

    def forward(self, features: Tensor) -> Tensor:
        return features + self.strength * self.narrow(torch.relu(self.wide(features)))


class Net(nn.Module):
    """Four residual blocks, of which the third hardly does anything."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(strength) for strength in (3.0, 2.0, 1e-4, 2.5)))
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


@pytest.mark.parametrize("as_graph", [False, True], ids=["module", "graph"])
def test_the_block_that_does_least_goes(
    net: nn.Module, images: DataSet, make_context: MakeContext, as_graph: bool
) -> None:
    given_module = fx.symbolic_trace(net) if as_graph else net
    result = PruneBlocks(1)(model_of(given_module, images), make_context(images))
    left = result.model.torch_module()
    inputs = torch.from_numpy(images.inputs["image"])
    torch.testing.assert_close(left(inputs), net(inputs), rtol=1e-3, atol=1e-3)
    assert "1 blocks were left out" in result.notes[0]
    assert "blocks.2" in result.notes[0]
    before, after = (sum(p.numel() for p in module.parameters()) for module in (net, left))
    assert before - after == 8 * 16 + 16 + 16 * 8 + 8


def test_several_blocks_go_one_after_the_other(
    net: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    graph = fx.symbolic_trace(net)
    result = PruneBlocks(3, max_harm=100.0)(model_of(graph, images), make_context(images))
    assert "3 blocks were left out" in result.notes[0]
    left = [name for name, _ in result.model.torch_module().named_modules() if name.endswith("wide")]
    assert len(left) == 1
    assert result.model.torch_module()(torch.zeros(3, 1, 8, 8)).shape == (3, 4)


def test_a_block_that_matters_stays_and_the_report_says_what_it_would_cost(
    net: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    model = model_of(net, images)
    result = PruneBlocks(1, max_harm=1e-12)(model, make_context(images))
    assert result.model is model
    assert not result.changed
    assert "the least harmful, blocks.2, would cost" in result.notes[0]


def test_blocks_can_be_left_out_with_retraining_between(
    net: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    step = PruneBlocks(2, max_harm=100.0, training=TrainingSettings(epochs=1))
    result = step(model_of(net, images), make_context(images, training=images, baseline=net))
    assert "2 blocks were left out" in result.notes[0]
    assert result.notes[-1].startswith("Trained on 320 samples")


def test_in_modules_blocks_are_submodules_and_in_graphs_branches_of_sums(net: nn.Module) -> None:
    image = torch.zeros(1, 1, 8, 8)
    skips = find_skips(net, [image])
    assert skips == [ModuleSkip(f"blocks.{index}") for index in range(4)]
    found = find_skips(fx.symbolic_trace(net), [image])
    assert [skip.name for skip in found] == [f"blocks.{index}.narrow" for index in range(4)]
    assert all(isinstance(skip, SumSkip) for skip in found)


def test_a_sum_of_two_branches_is_no_residual() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, rows: Tensor) -> Tensor:
            return self.left(rows) + self.right(rows)

    assert find_skips(fx.symbolic_trace(Two()), [torch.zeros(1, 4)]) == []


def test_a_bypass_takes_whatever_else_the_block_was_called_with() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    less = without(encoder, ModuleSkip("layers.1"))
    tokens = torch.randn(2, 3, 8)
    torch.testing.assert_close(less(tokens), encoder.layers[0](tokens))


def test_a_module_that_relies_on_its_blocks_is_left_alone(images: DataSet, make_context: MakeContext) -> None:
    class Relying(Net):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) + sum(block.wide.bias.sum() for block in self.blocks)

    model = model_of(Relying().eval(), images)
    result = PruneBlocks(1)(model, make_context(images))
    assert not result.changed
    assert "would cost inf" in result.notes[0]


def test_a_module_without_blocks_is_refused(images: DataSet, make_context: MakeContext) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with pytest.raises(PassError, match="no block"):
        PruneBlocks()(model_of(module, images), make_context(images))


def test_measuring_stops_when_the_time_is_up(
    net: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    with pytest.raises(OutOfTimeError):
        PruneBlocks()(model_of(net, images), make_context(images, deadline=0.0))


@pytest.mark.parametrize(
    ("options", "word"), [({"count": 0}, "number of blocks"), ({"max_harm": 0.0}, "harm")]
)
def test_impossible_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        PruneBlocks(**options)
