"""Shared weights in torch modules, whose values are trained."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.share.grouping import Scope, Sharing

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

if TYPE_CHECKING:
    from torch import nn

    from flyweight.compressor.passes.share.trained import TrainedShare


@pytest.fixture
def images(quarters: Callable[..., DataSet]) -> DataSet:
    return quarters(600, noise=0.7)


@pytest.fixture
def module(images: DataSet) -> "nn.Module":
    """A convolution and two products, trained a little, half of the weights pruned."""
    torch.manual_seed(0)
    nn = torch.nn
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    pixels, labels = torch.from_numpy(images.inputs["image"]), torch.from_numpy(images.labels)
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(pixels), labels).backward()
        optimizer.step()
    with torch.no_grad():
        for layer in (layers[0], layers[4], layers[6]):
            weight = layer.weight
            weight *= weight.abs() > weight.abs().median()
    return layers.eval()


@pytest.fixture
def context(tmp_path: Path, images: DataSet) -> Context:
    return Context(workspace=tmp_path, calibration=images, training=images)


def model_of(module: "nn.Module", images: DataSet) -> Model:
    return Model(module=module, example={"image": images.inputs["image"][:1]})


def sharing_pass(**options: object) -> "TrainedShare":
    from flyweight.compressor.passes.share.trained import TrainedShare
    from flyweight.compressor.training import TrainingSettings

    return TrainedShare(
        Sharing(**options),  # type: ignore[arg-type]
        TrainingSettings(epochs=3, learning_rate=2e-3, weight_decay=0.0),
    )


def test_the_gradient_of_an_entry_is_the_sum_of_its_weights_gradients() -> None:
    """Han et al. 2016, equation 3: with places 0 0 1 and gradients 1 2 4, the entries get 3 and 4."""
    from flyweight.compressor.passes.share.grouping import Kind
    from flyweight.compressor.passes.share.sharing import Shared, Weight
    from flyweight.compressor.passes.share.trained import _Tie, _tied

    parameter = torch.nn.Parameter(torch.tensor([[0.5, 0.5, 2.0, 0.0]]))
    places, book = np.array([[1, 1, 2, 0]]), np.array([0.0, 0.5, 2.0])
    tie = _Tie([(parameter, Shared(Weight("w", Kind.PRODUCT, np.zeros((1, 4))), places, book))])
    with _tied([tie]):
        (parameter * torch.tensor([[1.0, 2.0, 4.0, 8.0]])).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [[3.0, 3.0, 4.0, 0.0]]


def test_training_tied_weights_is_training_the_codebook(module: "nn.Module", images: DataSet) -> None:
    """The slower form: the codebook as a parameter, weights looked up in it, one step of gradient descent."""
    from flyweight.compressor.passes.share.grouping import Kind
    from flyweight.compressor.passes.share.kmeans import share
    from flyweight.compressor.passes.share.sharing import Shared, Weight
    from flyweight.compressor.passes.share.trained import _Tie, _tied

    weight = module[4].weight  # type: ignore[index]
    (places,), codebook = share([weight.detach().numpy()], 3)
    x, y = torch.randn(64, 128), torch.randn(64, 32)
    book = torch.tensor(codebook, dtype=torch.float32, requires_grad=True)
    ((x @ book[torch.from_numpy(places)].T - y) ** 2).mean().backward()
    expected = (book - 0.1 * book.grad).detach().numpy()
    expected[codebook == 0] = 0.0

    tied = torch.nn.Parameter(torch.tensor(codebook[places], dtype=torch.float32))
    tie = _Tie([(tied, Shared(Weight("w", Kind.PRODUCT, np.zeros((1, 1))), places, codebook))])
    with _tied([tie]):
        ((x @ tied.T - y) ** 2).mean().backward()
    torch.optim.SGD([tied], lr=0.1).step()
    tie.settle()
    np.testing.assert_allclose(tied.detach().numpy(), expected[places], atol=1e-6)


def test_weights_stay_shared_and_zeros_stay_zeros(
    module: "nn.Module", images: DataSet, context: Context
) -> None:
    before = copy.deepcopy(module)
    result = sharing_pass(bits=3, conv_bits=2)(model_of(module, images), context)
    shared = result.model.torch_module()
    for place, most in ((0, 4), (4, 8), (6, 8)):
        weight, old = shared[place].weight, before[place].weight  # type: ignore[index]
        assert len(torch.unique(weight)) <= most
        assert ((weight == 0) == (old == 0)).all()
        assert torch.equal(module[place].weight, old)  # type: ignore[index]
    assert "4296 weights of 3 tensors share 3 codebook(s)" in result.notes[0]
    assert "Trained on 600 samples with labels" in result.notes[1]


def test_trained_values_answer_better_than_those_of_k_means(
    module: "nn.Module", images: DataSet, context: Context
) -> None:
    """Two bits, one entry of which is zero's: means are far from what the network wants."""
    from flyweight.compressor.passes.share.trained import TrainedShare
    from flyweight.compressor.training import TrainingSettings

    pixels, labels = torch.from_numpy(images.inputs["image"]), torch.from_numpy(images.labels)
    losses = []
    for rate in (1e-12, 5e-3):
        settings = TrainingSettings(epochs=3, learning_rate=rate, weight_decay=0.0)
        step = TrainedShare(Sharing(bits=2, conv_bits=2), settings)
        shared = step(model_of(module, images), context).model.torch_module()
        with torch.no_grad():
            losses.append(float(torch.nn.functional.cross_entropy(shared(pixels), labels)))
    assert losses[1] < 0.8 * losses[0]


def test_one_codebook_for_all_layers_stays_one(
    module: "nn.Module", images: DataSet, context: Context
) -> None:
    step = sharing_pass(bits=4, bias_bits=3, scope=Scope.MODEL)
    shared = step(model_of(module, images), context).model.torch_module()
    weights = [p.detach().reshape(-1) for p in shared.parameters() if p.ndim >= 2]
    biases = [p.detach() for p in shared.parameters() if p.ndim == 1]
    assert len(torch.unique(torch.cat(weights))) <= 16
    assert len(torch.unique(torch.cat(biases))) <= 8


def test_the_same_seed_gives_the_same_weights(module: "nn.Module", images: DataSet, context: Context) -> None:
    step = sharing_pass(bits=3)
    first, second = (step(model_of(module, images), context).model.torch_module() for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_labels_the_original_teaches(module: "nn.Module", images: DataSet, tmp_path: Path) -> None:
    unlabelled = DataSet(images.inputs)
    context = Context(workspace=tmp_path, calibration=unlabelled, baseline=module)
    result = sharing_pass(bits=2)(model_of(module, images), context)
    assert "the original's answers" in result.notes[1]


def test_nobody_to_learn_from_is_a_sentence(module: "nn.Module", images: DataSet, tmp_path: Path) -> None:
    context = Context(workspace=tmp_path, calibration=DataSet(images.inputs))
    with pytest.raises(PassError, match="has neither; give labelled data"):
        sharing_pass()(model_of(module, images), context)


def test_batch_normalisation_is_told_and_not_shared(images: DataSet, context: Context) -> None:
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4)).eval()
    result = sharing_pass(bits=3, bias_bits=3)(model_of(module, images), context)
    assert "batch normalisation" in result.notes[-1]
    assert "3 tensors" not in result.notes[0]
    shared = result.model.torch_module()
    assert len(torch.unique(shared[1].weight)) == 8  # type: ignore[index]


def test_a_module_without_weights_is_refused(images: DataSet, context: Context) -> None:
    with pytest.raises(PassError, match="no floating-point weights"):
        sharing_pass()(model_of(torch.nn.Flatten(), images), context)
