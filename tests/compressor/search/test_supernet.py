"""Supernets: masks are exactly the networks that are cut out, and a search among them finds smaller ones."""

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model, example_of
from flyweight.compressor.passes.architecture import ArchitectureSearch
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.passes.distill.soft_labels import FineTune
from flyweight.compressor.search.architecture import Found, SandwichLoss, choose
from flyweight.compressor.search.extra import SearchError
from flyweight.compressor.search.supernet import SubNetwork, Supernet, key_of
from flyweight.compressor.training import TrainingSettings, answers, rows_of, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

pytestmark = pytest.mark.torch


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(channels)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.outer_norm = nn.BatchNorm2d(channels)

    def forward(self, x: "Tensor") -> "Tensor":
        inner = torch.relu(self.inner_norm(self.inner(x)))
        return torch.relu(x + self.outer_norm(self.outer(inner)))


class Network(nn.Module):
    """A 5x5 stem, two residual blocks, a depthwise 5x5 filter, a head; sigmoid(0) is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 5, padding=2)
        self.first = Block(16)
        self.second = Block(16)
        self.wide = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(32, 32, 5, padding=2, groups=32)
        self.head = nn.Linear(32, 10)
        self.between: Callable[[torch.Tensor], torch.Tensor] = torch.sigmoid

    def forward(self, x: "Tensor") -> "Tensor":
        x = self.second(self.first(torch.relu(self.stem(x))))
        x = torch.relu(self.depthwise(self.between(self.wide(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> tuple[DataSet, DataSet]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return DataSet({"x": pixels[:1200]}, labels[:1200]), DataSet({"x": pixels[1200:]}, labels[1200:])


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    module = Network()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module.eval()


@pytest.fixture
def net(network: Network) -> Supernet:
    return Supernet(network, [torch.randn(2, 1, 8, 8)])


def test_width_kernel_and_depth_are_found(net: Supernet) -> None:
    found = {key_of(d): d.values for d in net.dimensions}
    assert found.pop("kernel:stem") == (5, 3)
    assert found.pop("kernel:depthwise") == (5, 3)
    assert found.pop("depth:first") == (1, 0)
    assert found.pop("depth:second") == (1, 0)
    assert sorted(found.values()) == [(16, 8), (16, 8), (16, 8), (32, 24, 16, 8)]
    assert all(name.startswith("width:") for name in found)


@pytest.mark.parametrize("seed", range(6))
def test_a_sub_network_answers_the_same_masked_and_cut_out(net: Supernet, seed: int) -> None:
    sub = net.draw(random.Random(seed))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    shared = net.run(sub, [x])[0]
    torch.testing.assert_close(net.masked(sub)(x), shared)
    cut = net.extract(sub)
    torch.testing.assert_close(cut(x), shared, rtol=1e-4, atol=1e-5)
    assert net.costs(sub)[1] == sum(parameter.numel() for parameter in cut.parameters())


def test_the_whole_is_the_module_it_was_made_of(net: Supernet, network: Network) -> None:
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(net.run(SubNetwork(), [x])[0], network(x))
    macs, parameters = net.costs(SubNetwork())
    # 64 positions of 400 + 4 x 2304 weights, 16 of 4608 + 800, and the head's 320.
    assert macs == 64 * (400 + 4 * 2304) + 16 * (4608 + 800) + 320
    assert parameters == sum(parameter.numel() for parameter in network.parameters())


def test_gradients_of_a_sub_network_reach_its_weights_only(net: Supernet) -> None:
    sub = SubNetwork({"kernel:stem": 1})
    net.run(sub, [torch.randn(2, 1, 8, 8)])[0].sum().backward()
    gradient = net.module.get_parameter("stem.weight").grad
    assert gradient is not None
    assert gradient[..., 1:4, 1:4].abs().sum() > 0
    assert gradient[..., 0, :].abs().sum() == 0


def test_a_module_without_anything_elastic_is_refused() -> None:
    with pytest.raises(PassError, match="No layer of the module can be narrower"):
        Supernet(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), [torch.randn(2, 4)])


def test_the_sandwich_is_the_mean_over_the_whole_the_smallest_and_two_more(net: Supernet) -> None:
    rows = rows_of(DataSet({"x": np.ones((4, 1, 8, 8), np.float32)}, np.arange(4)), ["x"])
    outputs = net.run(SubNetwork(), rows.inputs)
    found = SandwichLoss(net, Distillation(), seed=3).of_all(outputs, rows)
    source, loss = random.Random(3), TrainingLoss(Distillation())
    taught = replace(rows, labels=None, teacher=tuple(output.detach() for output in outputs))
    expected = loss.of_all(outputs, rows)
    for sub in (net.smallest(), net.draw(source), net.draw(source)):
        expected = expected + loss.of_all(net.run(sub, rows.inputs), taught)
    torch.testing.assert_close(found, expected / 4)


def test_the_choice_is_the_least_loss_within_the_multiply_adds() -> None:
    front = tuple(
        Found(SubNetwork(), macs, macs, loss) for macs, loss in ((0.2, 0.9), (0.4, 0.5), (0.8, 0.1))
    )
    assert choose(front, 0.5).macs == 0.4
    assert choose(front, 1.0).macs == 0.8
    with pytest.raises(SearchError, match="the smallest that was found has 20%"):
        choose(front, 0.1)


@pytest.mark.parametrize("options", [{"macs": 0.0}, {"macs": 1.5}, {"trials": 1}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        ArchitectureSearch(**options)  # type: ignore[arg-type]


def test_half_of_a_network_that_reads_digits_reads_them_nearly_as_well(
    images: tuple[DataSet, DataSet], network: Network, tmp_path: Path
) -> None:
    training, judging = images
    context = Context(workspace=tmp_path, calibration=training, training=training, baseline=network)
    network.between = torch.relu  # learns in a few epochs
    train(network, rows_of(training, ["x"]), TrainingLoss(), TrainingSettings(5, learning_rate=5e-3), context)
    search = ArchitectureSearch(0.5, TrainingSettings(3, learning_rate=4e-3), trials=12)
    model = Model(module=network, example=example_of(training.inputs))
    result = search.apply(model, context)
    again = replace(search, macs=0.3).apply(model, context)  # the supernet is trained once for both

    def right(module: nn.Module) -> float:
        rows = rows_of(judging, ["x"])
        return float((answers(module, rows.inputs).argmax(1) == rows.labels).float().mean())

    assert right(network) > 0.85
    # Cut out it is not as good yet, and better than chance; it learns the rest by itself.
    assert right(result.model.torch_module()) > 0.5
    tuned = FineTune(TrainingSettings(5, learning_rate=3e-3)).apply(result.model, context)
    assert right(tuned.model.torch_module()) > right(network) - 0.05
    sizes = [
        sum(p.numel() for p in m.parameters())
        for m in (again.model.torch_module(), result.model.torch_module(), network)
    ]
    assert sizes == sorted(sizes)
    assert sizes[1] < sizes[2]
    assert "of the multiply-adds" in result.notes[0]
    assert result.changed
