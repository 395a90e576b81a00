"""Zeros that grow within one training."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.prune.masks import Mask, keep_largest
from flyweight.compressor.passes.prune.retraining import Retraining
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify import Criterion, Sparsify
from flyweight.compressor.passes.prune.thinning import Thinning
from flyweight.compressor.passes.prune.weights import prunable, sparsity
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import Trained, TrainingHooks, TrainingSettings

MakeContext = Callable[..., Context]
TRAINING = TrainingSettings(epochs=4, batch_rows=32, learning_rate=5e-3)


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def thinning(epochs: int, per_epoch: int, left_seconds: float = math.inf) -> Thinning:
    """Thin the 1000 weights of a layer until none stays."""

    def masks_at(module: nn.Module, part: float) -> dict[str, Mask]:
        return {"weight": keep_largest(module.weight.detach().abs().numpy(), part)}

    return Thinning(masks_at, epochs, per_epoch, lambda: left_seconds)


def layer() -> nn.Linear:
    module = nn.Linear(100, 10)
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, 1001.0).view(10, 100))
    return module


def test_zeros_grow_along_the_cubic_until_six_tenths_of_the_steps() -> None:
    module, thin = layer(), thinning(epochs=2, per_epoch=5)
    found = []
    for _ in range(11):
        thin(module)
        found.append(int((module.weight == 0).sum()))
    # Of 1000, what is left falls with the cube of the steps to go: five sixths of them, four, three ...
    assert found == [0, 421, 704, 875, 963, 995, 1000, 1000, 1000, 1000, 1000]
    assert thin.reached == 1.0


def test_zeros_are_held_between_updates() -> None:
    module, thin = layer(), thinning(epochs=1, per_epoch=1000)
    for _ in range(15):
        thin(module)
    gone = module.weight == 0
    assert gone.any()
    with torch.no_grad():
        module.weight.add_(1.0)
    thin(module)  # step 15 chooses none anew, as 10 and 20 do
    assert torch.equal(module.weight == 0, gone)


def test_fewer_epochs_that_fit_into_the_time_let_zeros_grow_faster() -> None:
    module, thin = layer(), thinning(epochs=100, per_epoch=10, left_seconds=0.0)
    for _ in range(10):
        thin(module)
    assert thin.reached == 0.0
    thin(module)
    assert (thin.epochs, thin.reached) == (1, 1.0)


def test_what_a_training_left_undone_is_finished() -> None:
    module, thin = layer(), thinning(epochs=2, per_epoch=5)
    thin(module)
    thin.finish(module)
    assert (module.weight == 0).all()


@pytest.mark.parametrize("scope", [Scope.LAYER, Scope.GLOBAL, Scope.LAMP])
def test_gradual_training_ends_at_the_ratio(
    network: nn.Module, images: DataSet, make_context: MakeContext, scope: Scope
) -> None:
    context = make_context(images, training=images, baseline=network)
    step = Sparsify(0.9, scope=scope, gradual=True, training=TRAINING)
    result = step(model_of(network, images), context)
    trained = result.model.torch_module()
    total = 64 * 32 + 32 * 4
    assert sparsity(trained, prunable(trained)) == pytest.approx(round(0.9 * total) / total, abs=1 / total)
    assert sparsity(network, prunable(network)) == 0
    assert "are zero gradually" in result.notes[0]
    assert "Thinned in 4 epochs of training on 320 samples." in result.notes[1]


def test_what_was_zero_before_stays_zero(
    network: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    with torch.no_grad():
        network[1].weight[:, :8] = 0.0
    step = Sparsify(0.5, scope=Scope.LAMP, gradual=True, training=TRAINING)
    trained = step(model_of(network, images), make_context(images, training=images)).model.torch_module()
    assert (trained[1].weight[:, :8] == 0).all()
    assert sparsity(trained, prunable(trained)) == pytest.approx(0.5, abs=1e-3)


def test_gradual_training_to_a_threshold_leaves_only_weights_that_were_above_it(
    network: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    step = Sparsify(threshold=0.1, gradual=True, training=TRAINING)
    trained = step(model_of(network, images), make_context(images, training=images)).model.torch_module()
    assert 0.3 < sparsity(trained, prunable(trained)) < 1.0


def test_zeros_that_came_with_the_time_limit_are_reported(
    network: nn.Module, images: DataSet, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(_: Retraining, module: nn.Module, hooks: TrainingHooks) -> Trained:
        assert hooks.after_step is not None
        hooks.after_step(module)
        return Trained(0.0, 1.0, 1, 0, epochs=1, out_of_time=True)

    monkeypatch.setattr(Retraining, "train", cut_short)
    step = Sparsify(0.75, scope=Scope.LAYER, gradual=True, training=TRAINING)
    result = step(model_of(network, images), make_context(images, training=images))
    assert sparsity(result.model.torch_module(), prunable(network)) == 0.75
    assert "The time limit came at 0% of the zeros" in result.notes[2]


def test_it_answers_better_than_pruning_at_once(
    network: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    context = make_context(images, training=images)
    gradual = Sparsify(0.95, scope=Scope.LAMP, gradual=True, training=replace(TRAINING, epochs=8))
    model = model_of(network, images)
    inputs, labels = torch.from_numpy(images.inputs["image"]), torch.from_numpy(np.asarray(images.labels))
    right = [
        int((step(model, context).model.torch_module()(inputs).argmax(1) == labels).sum())
        for step in (gradual, Sparsify(0.95, scope=Scope.LAMP))
    ]
    assert right[0] > right[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"training": None}, "within one training"),
        ({"rounds": 2}, "one round"),
        ({"pattern": "2:4"}, "no pattern"),
        ({"scope": Scope.SENSITIVITY}, "layer, global or lamp"),
        ({"criterion": Criterion.TAYLOR}, "by magnitude"),
    ],
)
def test_what_it_cannot_go_by_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Sparsify(**{"gradual": True, "training": TRAINING, **options})
