"""The pass that removes channels: ratios by layer, by one ranking, by measured harm; in rounds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, RecipeError
from flyweight.compressor.passes.prune import structured
from flyweight.compressor.passes.prune.channels import prepare
from flyweight.compressor.passes.prune.costs import Costs
from flyweight.compressor.passes.prune.plans import first_within
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.structured import ChannelImportance, StructuredPrune, this_width
from flyweight.compressor.processor import Processor
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings

IMAGE = torch.zeros(1, 1, 8, 8)
SHORT = TrainingSettings(epochs=1, held_out=0.0)
MakeContext = Callable[..., Context]


class Towers(nn.Module):
    """Two towers side by side; the answer hardly listens to the second."""

    def __init__(self) -> None:
        super().__init__()
        self.heard, self.unheard = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(1, 64, 3, padding=1)
        self.one, self.other = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, image: Tensor) -> Tensor:
        first = torch.relu(self.heard(image)).mean((2, 3))
        second = torch.relu(self.unheard(image)).mean((2, 3))
        return self.one(first) + 1e-4 * self.other(second)


@pytest.fixture
def towers() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Towers().eval()
        with torch.no_grad():
            module.one.weight *= 10.0
    return module


def macs(module: nn.Module) -> float:
    return Costs(prepare(module, [IMAGE]).couplings).of({})


@pytest.mark.parametrize("importance", list(ChannelImportance))
def test_sensitivity_takes_from_the_tower_nobody_hears(
    towers: nn.Module, images: DataSet, make_context: MakeContext, importance: ChannelImportance
) -> None:
    model, context = model_of(towers, images), make_context(images)
    even = StructuredPrune(0.5, importance)(model, context).model.torch_module()
    careful = StructuredPrune(0.5, importance, scope=Scope.SENSITIVITY)(model, context).model.torch_module()
    assert (even.heard.out_channels, even.unheard.out_channels) == (32, 32)
    assert careful.heard.out_channels > careful.unheard.out_channels
    assert macs(careful) <= macs(even)


def test_one_ranking_by_effect_takes_from_the_tower_nobody_hears(
    towers: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    model, context = model_of(towers, images), make_context(images)
    step = StructuredPrune(0.25, ChannelImportance.TAYLOR, scope=Scope.GLOBAL)
    result = step(model, context)
    pruned = result.model.torch_module()
    assert pruned.heard.out_channels == 64
    assert pruned.unheard.out_channels == 32
    assert "ranked across all layers" in result.notes[0]


def test_no_layer_is_emptied_by_a_ranking(
    towers: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    step = StructuredPrune(0.5, ChannelImportance.TAYLOR, round_to=8, scope=Scope.GLOBAL)
    pruned = step(model_of(towers, images), make_context(images)).model.torch_module()
    assert pruned.unheard.out_channels == 8


def test_without_labels_importance_comes_from_the_answers(
    towers: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    unlabelled = DataSet(images.inputs)
    step = StructuredPrune(0.25, ChannelImportance.TAYLOR, scope=Scope.GLOBAL)
    pruned = step(model_of(towers, unlabelled), make_context(unlabelled)).model.torch_module()
    assert pruned.unheard.out_channels < pruned.heard.out_channels
    assert all(parameter.grad is None for parameter in towers.parameters())


def test_rounds_come_to_the_width_that_one_cut_would_and_keep_the_original(
    towers: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    before = {name: value.clone() for name, value in towers.state_dict().items()}
    context = make_context(images, training=images, baseline=towers)
    step = StructuredPrune(0.5, rounds=2, training=SHORT)
    result = step(model_of(towers, images), context)
    pruned = result.model.torch_module()
    assert (pruned.heard.out_channels, pruned.unheard.out_channels) == (32, 32)
    assert "in 2 rounds" in result.notes[0]
    assert result.notes[-1].startswith("Trained on 320 samples with labels and the original's answers")
    assert all(torch.equal(value, before[name]) for name, value in towers.state_dict().items())


def test_an_attention_with_heads_in_its_reshapes_is_named_among_what_was_left(
    tokens: DataSet, make_context: MakeContext
) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.wide, self.head = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(64, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            rows, length, _ = tokens.shape
            query = self.query(tokens).reshape(rows, length, 4, 8).transpose(1, 2)
            mixed = (query @ query.transpose(-1, -2)).softmax(-1) @ query
            return self.head(torch.relu(self.wide(mixed.transpose(1, 2).reshape(rows, length, 32)))).mean(1)

    model = model_of(Attention().eval(), tokens)
    result = StructuredPrune(0.5)(model, make_context(tokens))
    assert result.model.torch_module().wide.out_features == 32
    assert "1 layers were left whole; query" in result.notes[1]


@pytest.mark.parametrize(
    ("sets", "width"), [(("avx2", "avx512f"), 16), (("avx", "avx2"), 8), (("asimd",), 8)]
)
def test_widths_are_rounded_to_what_the_processor_holds(
    sets: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structured, "this_processor", lambda: Processor("", sets, 1))
    assert this_width() == width


def test_the_processor_decides_the_widths_unless_they_are_given(
    images: DataSet, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structured, "this_processor", lambda: Processor("", ("avx2",), 1))
    module = nn.Sequential(nn.Conv2d(1, 48, 8), nn.Flatten(), nn.Linear(48, 4)).eval()
    model, context = model_of(module, images), make_context(images)
    assert StructuredPrune(0.5)(model, context).model.torch_module()[0].out_channels == 24
    assert StructuredPrune(0.5, round_to=16)(model, context).model.torch_module()[0].out_channels == 32
    assert StructuredPrune(0.3, round_to=1)(model, context).model.torch_module()[0].out_channels == 34


def test_measuring_stops_when_the_time_is_up(
    towers: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    context = make_context(images)
    model = model_of(towers, images)
    with pytest.raises(OutOfTimeError):
        StructuredPrune(0.5, scope=Scope.SENSITIVITY)(model, replace(context, deadline=0.0))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"ratio": 1.0}, "ratio"),
        ({"round_to": 0}, "multiple"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 3}, "needs training"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        StructuredPrune(**options)


def test_the_first_level_within_the_budget_is_found() -> None:
    plan = first_within(lambda level: {"kept": 100 - int(100 * level)}, lambda plan: plan["kept"], 63.0)
    assert plan == {"kept": 63}


def test_a_budget_out_of_reach_gives_the_last_plan() -> None:
    assert first_within(lambda level: {"kept": 10}, lambda plan: plan["kept"], 5.0) == {"kept": 10}
