"""Channels that go together: what is cut, that it is really smaller, and that it answers as it should."""

import copy

import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.prune.channels import (
    CutSettings,
    apply_plan,
    by_gradient,
    by_magnitude,
    cut_channels,
    prepare,
    uniform_plan,
)
from flyweight.compressor.passes.prune.costs import Costs, multiply_adds
from flyweight.compressor.passes.prune.flattening import free_flattening
from flyweight.compressor.torch_model import model_of

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
HALF = CutSettings(0.5, 8)


class Inverted(nn.Module):
    """The block of MobileNetV2 (expand, depthwise, squeeze and excite, project) with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.expand, self.expand_norm = nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64)
        self.depthwise, self.depthwise_norm = nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64)
        self.squeeze, self.excite = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1)
        self.project = nn.Conv2d(64, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        block = self.stem(image)
        wide = torch.nn.functional.relu6(self.expand_norm(self.expand(block)))
        wide = torch.nn.functional.relu6(self.depthwise_norm(self.depthwise(wide)))
        gate = self.excite(torch.relu(self.squeeze(wide.mean((2, 3), keepdim=True))))
        block = block + self.project(wide * torch.sigmoid(gate))
        return self.head(block.mean((2, 3)))


class Dense(nn.Module):
    """Three layers of a DenseNet: each reads everything before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1))
        self.second = nn.Sequential(nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1))
        self.last = nn.BatchNorm2d(80)
        self.head = nn.Linear(80, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        features = torch.cat([features, self.first(features)], 1)
        features = torch.cat([features, self.second(features)], 1)
        return self.head(torch.relu(self.last(features)).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.grouped(torch.relu(self.stem(image))).mean((2, 3)))


class Shuffled(nn.Module):
    """Half the channels change places in a reshape, which no dependency graph sees."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)
        self.free, self.head = nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        rows, channels = features.shape[:2]
        features = features.reshape(rows, 2, channels // 2, *features.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(torch.relu(self.free(self.after(features).mean((2, 3)))))


def network(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module


@pytest.mark.parametrize("as_graph", [False, True], ids=["module", "graph"])
@pytest.mark.parametrize(
    ("kind", "widths"),
    [
        (Inverted, {"stem": 16, "expand": 32, "depthwise": 32, "squeeze": 8, "excite": 32, "project": 16}),
        (Dense, {"stem": 8, "first.2": 16, "second.2": 16}),
        (Grouped, {"stem": 16, "grouped": 16}),
    ],
)
def test_coupled_layers_become_smaller_together_and_run_in_onnxruntime(
    kind: type[nn.Module], widths: dict[str, int], as_graph: bool, make_context
) -> None:
    module = network(kind)
    given_module = fx.symbolic_trace(module) if as_graph else module
    cut = cut_channels(given_module, [IMAGE], HALF, by_magnitude())
    assert {name: width for name, (_, width) in cut.channels.items()} == widths
    for name, width in widths.items():
        assert cut.module.get_submodule(name).weight.shape[0] == width
    if as_graph:
        assert torch.equal(
            cut.module(IMAGE), cut_channels(module, [IMAGE], HALF, by_magnitude()).module(IMAGE)
        )
        return
    data = DataSet({"image": IMAGE.numpy()})
    exported = Export()(model_of(cut.module, data), make_context(data)).model
    session = ort.InferenceSession(str(exported.onnx_path()), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"image": IMAGE.numpy()})
    assert answer.shape == (1, 5)
    torch.testing.assert_close(torch.from_numpy(answer), cut.module(IMAGE).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Inverted, Dense, Grouped])
def test_cutting_nothing_changes_no_answer(kind: type[nn.Module]) -> None:
    module = network(kind)
    cut = cut_channels(module, [IMAGE], CutSettings(1.0), by_magnitude())
    assert not cut.channels
    assert torch.equal(cut.module(IMAGE), module(IMAGE))


@given(st.lists(st.integers(0, 31), min_size=16, max_size=16, unique=True))
@settings(max_examples=5)
def test_channels_without_weights_can_be_cut_without_changing_an_answer(dead: list[int]) -> None:
    module = network(Inverted)
    with torch.no_grad():
        for layer in (module.stem, module.project):
            layer.weight[dead], layer.bias[dead] = 0.0, 0.0
        module.expand.weight[:, dead] = 0.0
        module.head.weight[:, dead] = 0.0
    prepared = prepare(module, [IMAGE])
    cut = apply_plan(prepared, {"stem": 16}, by_magnitude())
    assert cut.channels == {"stem": (32, 16), "project": (32, 16)}
    torch.testing.assert_close(cut.module(IMAGE), module(IMAGE), rtol=1e-5, atol=1e-5)


def test_channels_that_forward_moves_about_are_left_whole_with_the_reason() -> None:
    cut = cut_channels(network(Shuffled), [IMAGE], HALF, by_magnitude())
    assert "stem" not in cut.channels
    assert "stem" in cut.refused
    assert cut.channels["free"] == (32, 16)


def test_a_trial_is_undone_whole() -> None:
    module = network(Dense)
    prepared = prepare(module, [IMAGE])
    couplings = prepared.couplings
    stem = next(group for group in prepared.groups if group.root == "stem")
    before = {name: value.clone() for name, value in couplings.module.state_dict().items()}
    for _ in range(2):
        with couplings.trial():
            couplings.cut(stem, [0, 3, 5])
            assert couplings.module.stem.out_channels == 13
            couplings.answers()
    after = couplings.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert couplings.module.stem.out_channels == 16
    assert torch.equal(couplings.module(IMAGE), module(IMAGE))
    # And the cut after trials is the cut without them.
    plan = uniform_plan(prepared.groups, HALF)
    with_trials = apply_plan(prepared, plan, by_magnitude()).module
    without = apply_plan(prepare(module, [IMAGE]), plan, by_magnitude()).module
    assert torch.equal(with_trials(IMAGE), without(IMAGE))


@pytest.mark.parametrize("kind", [Inverted, Dense, Grouped])
def test_costs_of_a_plan_are_those_of_the_module_that_it_makes(kind: type[nn.Module]) -> None:
    prepared = prepare(network(kind), [IMAGE])
    costs, plan = Costs(prepared.couplings), uniform_plan(prepared.groups, HALF)
    whole, expected = costs.of({}), costs.of(plan)
    assert whole == sum(multiply_adds(prepared.couplings).values())
    cut = apply_plan(prepared, plan, by_magnitude()).module
    assert sum(multiply_adds(prepare(cut, [IMAGE]).couplings).values()) == pytest.approx(expected)
    assert expected < whole


def test_multiply_adds_of_the_inverted_block() -> None:
    counted = multiply_adds(prepare(network(Inverted), [IMAGE]).couplings)
    assert counted == {
        "stem": 64 * 27 * 32,
        "expand": 64 * 32 * 64,
        "depthwise": 64 * 9 * 64,
        "squeeze": 64 * 16,
        "excite": 16 * 64,
        "project": 64 * 64 * 32,
        "head": 32 * 5,
    }


def test_multiply_adds_of_a_transposed_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ConvTranspose2d(16, 16, 2, stride=2), nn.Conv2d(16, 2, 1))
    prepared = prepare(module.eval(), [IMAGE])
    assert multiply_adds(prepared.couplings)["1"] == 64 * 16 * 16 * 4
    plan = uniform_plan(prepared.groups, HALF)
    expected = Costs(prepared.couplings).of(plan)
    cut = apply_plan(prepared, plan, by_magnitude()).module
    assert sum(multiply_adds(prepare(cut, [IMAGE]).couplings).values()) == pytest.approx(expected)


def test_a_reshape_with_the_features_in_it_is_freed_in_a_graph() -> None:
    class Lenet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 32, 3, padding=1, stride=2), nn.Linear(512, 5)

        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.conv(image).reshape(-1, 512))

    graph = fx.symbolic_trace(network(Lenet))
    expected = graph(IMAGE)
    freed = copy.deepcopy(graph)
    assert free_flattening(freed, [IMAGE]) == 1
    assert torch.equal(freed(torch.cat([IMAGE, IMAGE]))[:1], graph(torch.cat([IMAGE, IMAGE]))[:1])
    cut = cut_channels(graph, [IMAGE], HALF, by_magnitude())
    assert cut.channels == {"conv": (32, 16)}
    assert cut.module.head.in_features == 256
    assert cut.module(IMAGE).shape == expected.shape


def test_comparable_gradients_are_the_change_of_the_loss_itself() -> None:
    module = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)).eval()
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    prepared = prepare(module, [torch.zeros(1, 4)])
    (group,) = prepared.groups
    found = prepared.couplings.scores(group, by_gradient(comparable=True))
    expected = 2 * module[0].weight.detach().abs().sum(1) + 2 * module[2].weight.detach().abs().sum(0)
    torch.testing.assert_close(found, expected)


def test_a_module_that_cannot_be_traced_is_refused() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, image: Tensor) -> Tensor:
            raise ValueError("not today")

    with pytest.raises(PassError, match=r"could not be traced.*not today"):
        prepare(Broken(), [IMAGE])
