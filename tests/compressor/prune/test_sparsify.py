"""Zeros in the weights of torch modules, held while they train."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.passes.prune.saliency import accumulate_gradients, batch_gradients, drawn_label_loss
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify import Criterion, Sparsify
from flyweight.compressor.passes.prune.weights import apply_masks, holding, prunable, sparsity
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import Optimizer, TrainingSettings

MakeContext = Callable[..., Context]


@pytest.fixture
def convnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 4),
        ).eval()


def shares(module: nn.Module) -> list[float]:
    return [sparsity(module, (weight,)) for weight in prunable(module)]


def test_each_layer_loses_the_ratio(convnet: nn.Module, images: DataSet, make_context: MakeContext) -> None:
    result = Sparsify(0.75, scope=Scope.LAYER)(model_of(convnet, images), make_context(images))
    assert shares(result.model.torch_module()) == [0.75, 0.75, 0.75]
    assert sparsity(convnet, prunable(convnet)) == 0
    assert "75.0% of 3,472 weights in 3 layers are zero" in result.notes[0]


def test_one_threshold_cuts_across_layers(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    with torch.no_grad():
        convnet[6].weight *= 100.0
    result = Sparsify(0.5)(model_of(convnet, images), make_context(images))
    found = shares(result.model.torch_module())
    # Uniform weights are near zero now and then, even a hundred times as large.
    assert found[2] < 0.05
    assert sparsity(result.model.torch_module(), prunable(convnet)) == pytest.approx(0.5)
    assert found[1] > found[0] > 0.0


def test_a_threshold_removes_what_is_not_above_it(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    pruned = Sparsify(threshold=0.05)(model_of(convnet, images), make_context(images)).model.torch_module()
    for weight in prunable(convnet):
        before, after = convnet.get_parameter(weight.name), pruned.get_parameter(weight.name)
        assert torch.equal(after, torch.where(before.abs() > 0.05, before, 0.0))


def test_a_pattern_runs_along_the_input_channels(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    pruned = Sparsify(pattern="2:4")(model_of(convnet, images), make_context(images)).model.torch_module()
    groups = pruned[3].weight.detach().movedim(1, -1).reshape(-1, 4)
    assert ((groups != 0).sum(dim=1) == 2).all()
    # A single input channel makes no group of four.
    assert (pruned[0].weight != 0).all()


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_zeros_stay_exactly_zero_in_every_step_of_retraining(
    convnet: nn.Module, images: DataSet, make_context: MakeContext, optimizer: Optimizer
) -> None:
    training = TrainingSettings(epochs=2, optimizer=optimizer, learning_rate=1e-3)
    context = make_context(images, training=images, baseline=convnet)
    one_shot = Sparsify(0.8, scope=Scope.LAYER)(model_of(convnet, images), context).model.torch_module()
    step = Sparsify(0.8, scope=Scope.LAYER, training=training)
    trained = step(model_of(convnet, images), context).model.torch_module()
    for weight in prunable(convnet):
        gone = one_shot.get_parameter(weight.name) == 0
        assert (trained.get_parameter(weight.name)[gone] == 0).all()
        assert not torch.equal(trained.get_parameter(weight.name), one_shot.get_parameter(weight.name))


def test_hooks_put_positive_zeros_back_after_a_step() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(-1.0)
    mask = torch.tensor([[True, False], [False, True]])
    hook = holding({"weight": mask}).after_step
    assert hook is not None
    hook(layer)
    assert layer.weight.tolist() == [[-1.0, 0.0], [0.0, -1.0]]
    assert not torch.signbit(layer.weight[~mask]).any()


def test_rounds_with_retraining_end_at_the_ratio_and_answer_better_than_one_shot(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    context = make_context(images, training=images, baseline=convnet)
    training = TrainingSettings(epochs=3, learning_rate=5e-3)
    result = Sparsify(0.9, rounds=3, training=training)(model_of(convnet, images), context)
    trained = result.model.torch_module()
    assert sparsity(trained, prunable(trained)) == pytest.approx(0.9, abs=1e-3)
    assert "in 3 rounds" in result.notes[0]
    one_shot = Sparsify(0.9)(model_of(convnet, images), context).model.torch_module()
    inputs, labels = torch.from_numpy(images.inputs["image"]), torch.from_numpy(images.labels)
    right = [(module(inputs).argmax(1) == labels).sum() for module in (trained, one_shot)]
    assert right[0] > right[1]


def test_a_pattern_in_rounds_ends_at_the_pattern(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    step = Sparsify(pattern="1:4", rounds=2, training=TrainingSettings(epochs=1))
    assert [target.pattern for target in step._targets()] == ["2:4", "1:4"]
    context = make_context(images, training=images)
    trained = step(model_of(convnet, images), context).model.torch_module()
    assert sparsity(trained, prunable(trained)[1:]) == 0.75


def test_a_threshold_in_rounds_grows_to_it() -> None:
    step = Sparsify(threshold=0.8, rounds=2, training=TrainingSettings(epochs=1))
    assert [target.threshold for target in step._targets()] == pytest.approx([0.7, 0.8])


def test_sensitivity_spares_the_layer_that_decides(images: DataSet, make_context: MakeContext) -> None:
    """Of two layers with like weights the answer hardly listens to the second, and no magnitude says so."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loud, self.quiet = nn.Linear(64, 4), nn.Linear(64, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            rows = image.flatten(1)
            return 10 * self.loud(rows) + 1e-3 * self.quiet(rows)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Two().eval()
    model, context = model_of(module, images), make_context(images)
    found = shares(Sparsify(0.5, scope=Scope.SENSITIVITY)(model, context).model.torch_module())
    assert found == pytest.approx([0.0, 1.0], abs=0.05)
    assert sum(found) / 2 == pytest.approx(0.5, abs=0.005)


def test_measuring_sensitivity_leaves_the_module_as_it_was(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    Sparsify(0.5, scope=Scope.SENSITIVITY)(model_of(convnet, images), make_context(images))
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())


def test_the_effect_on_the_loss_decides_where_it_is_asked(images: DataSet, make_context: MakeContext) -> None:
    """Large weights on an input that is always zero move no loss."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        module[1].weight[:, :32] = 5.0
        module[1].weight[:, 32:] = torch.linspace(0.1, 0.2, 32)
    pixels = images.inputs["image"].copy()
    pixels[:, :, :4] = 0.0
    half = DataSet({"image": pixels}, images.labels)
    context = make_context(half, training=half)
    by_effect = Sparsify(0.5, criterion=Criterion.TAYLOR)(
        model_of(module, half), context
    ).model.torch_module()
    by_size = Sparsify(0.5)(model_of(module, half), context).model.torch_module()
    assert (by_effect[1].weight[:, :32] == 0).all()
    assert (by_size[1].weight[:, 32:] == 0).all()


def test_recurrent_and_attention_weights_can_be_sparse_and_embeddings_are_not() -> None:
    module = nn.ModuleDict(
        {
            "words": nn.Embedding(10, 8),
            "lstm": nn.LSTM(8, 4),
            "cell": nn.GRUCell(4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "up": nn.ConvTranspose2d(4, 2, 2),
            "norm": nn.LayerNorm(4),
        }
    )
    found = {weight.name: weight.input_axis for weight in prunable(module)}
    assert found == {
        "lstm.weight_ih_l0": 1,
        "lstm.weight_hh_l0": 1,
        "cell.weight_ih": 1,
        "cell.weight_hh": 1,
        "attention.in_proj_weight": 1,
        "attention.out_proj.weight": 1,
        "up.weight": 0,
    }


def test_a_shared_weight_counts_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert len(prunable(nn.Sequential(first, second))) == 1


def test_squares_of_gradients_are_averaged_over_batches(make_context: MakeContext) -> None:
    """Answers y = w x to one batch of each sign: gradients cancel in the mean, not in the mean square."""
    module = nn.Linear(1, 1, bias=False).eval()
    with torch.no_grad():
        module.weight.fill_(0.0)
    targets = np.concatenate([np.full((16, 1), 1.0), np.full((16, 1), -1.0)]).astype(np.float32)
    data = DataSet({"x": np.ones((32, 1), dtype=np.float32)}, targets)
    accumulate_gradients(module, model_of(module, data), make_context(data, training=data))
    # The loss (w x - y)^2 has the gradients -2 and 2.
    assert module.weight.grad.item() == pytest.approx(2.0)


def test_drawn_labels_have_the_fisher_information_of_a_coin() -> None:
    """With one logit z and one fixed at 0, the mean squared gradient of z is p (1 - p)."""
    random = torch.Generator().manual_seed(0)
    logit = torch.tensor(2.0, requires_grad=True)
    squares = []
    for _ in range(2000):
        (gradient,) = torch.autograd.grad(
            drawn_label_loss(torch.stack([logit, torch.tensor(0.0)]).unsqueeze(0), random), logit
        )
        squares.append(float(gradient) ** 2)
    p = float(torch.sigmoid(torch.tensor(2.0)))
    assert np.mean(squares) == pytest.approx(p * (1 - p), rel=0.15)


def test_frozen_weights_get_gradients_and_are_frozen_again(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    convnet.requires_grad_(False)
    for _ in batch_gradients(convnet, model_of(convnet, images), make_context(images)):
        assert convnet[0].weight.grad is not None
    assert not any(parameter.requires_grad for parameter in convnet.parameters())
    assert all(parameter.grad is None for parameter in convnet.parameters())


def test_asking_for_zeros_that_are_there_changes_nothing(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    first = Sparsify(0.5, scope=Scope.LAYER)(model_of(convnet, images), make_context(images)).model
    again = Sparsify(0.5, scope=Scope.LAYER)(first, make_context(images))
    assert not again.changed
    assert again.model is first


def test_masks_of_nothing_change_nothing(convnet: nn.Module) -> None:
    before = convnet[0].weight.detach().clone()
    apply_masks(convnet, {"0.weight": torch.ones_like(before, dtype=torch.bool)})
    assert torch.equal(convnet[0].weight, before)


def test_a_module_without_weights_is_refused(images: DataSet, make_context: MakeContext) -> None:
    with pytest.raises(PassError, match="no convolution, linear or recurrent layer"):
        Sparsify()(model_of(nn.Flatten(), images), make_context(images))


def test_retraining_without_labels_or_teacher_is_refused(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    unlabelled = DataSet(images.inputs)
    with pytest.raises(PassError, match="labels or the original"):
        Sparsify(training=TrainingSettings())(model_of(convnet, unlabelled), make_context(unlabelled))


def test_measuring_stops_when_the_time_is_up(
    convnet: nn.Module, images: DataSet, make_context: MakeContext
) -> None:
    with pytest.raises(OutOfTimeError):
        Sparsify()(model_of(convnet, images), make_context(images, deadline=0.0))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"ratio": -0.1}, "ratio"),
        ({"pattern": "3"}, "pattern"),
        ({"rounds": 2}, "needs training"),
        ({"gradual": True}, "within one training"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        Sparsify(**options)
