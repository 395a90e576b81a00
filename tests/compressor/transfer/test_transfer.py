"""Transfer learning: a new head, frozen layers, and both together."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import OutOfTimeError, PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.distill.soft_labels import FineTune
from flyweight.compressor.passes.transfer import Surroundings, TransferSettings, transfer
from flyweight.compressor.passes.transfer.freezing import Freeze, frozen_parameters
from flyweight.compressor.passes.transfer.heads import ReplaceHead, count_classes, find_head
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings, answers, rows_of, seeded

pytestmark = pytest.mark.torch
QUICK = TrainingSettings(epochs=3, batch_rows=32, learning_rate=1e-2)


class Net(nn.Module):
    """A body of two layers, and a head of seven classes that is defined before them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 7)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture
def data() -> DataSet:
    """300 points in three classes: which of the first three numbers is largest."""
    points = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    return DataSet({"x": points}, points[:, :3].argmax(axis=1))


@pytest.fixture
def model(data: DataSet) -> Model:
    with seeded(0):
        return model_of(Net(), data)


@pytest.fixture
def context(tmp_path: Path, data: DataSet) -> Context:
    return Context(workspace=tmp_path / "work", calibration=data, training=data)


def accuracy(model: Model, data: DataSet) -> float:
    found = answers(model.torch_module(), rows_of(data, ["x"]).inputs).argmax(dim=1)
    return float((found == torch.from_numpy(data.labels)).float().mean())


def test_the_head_is_the_last_layer_that_runs(model: Model) -> None:
    assert find_head(model.torch_module(), [torch.zeros(1, 16)]) == "head"
    with pytest.raises(PassError, match="could be its head"):
        find_head(nn.Flatten(), [torch.zeros(1, 16)])


def test_a_new_head_has_as_many_classes_as_the_labels(model: Model, context: Context) -> None:
    result = ReplaceHead()(model, context)
    assert result.model.torch_module().head.out_features == 3
    assert model.torch_module().head.out_features == 7
    assert result.notes == ("The head head has 3 classes instead of 7.",)
    assert ReplaceHead(classes=5)(model, context).model.torch_module()(torch.zeros(2, 16)).shape == (2, 5)


def test_a_convolution_of_1x1_is_a_head_too(context: Context) -> None:
    data = DataSet({"x": np.zeros((4, 1, 4, 4), np.float32)}, np.array([0, 1, 2, 1]))
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 5, 1), nn.Flatten())
    made = ReplaceHead(classes=2)(model_of(module, data), context).model.torch_module()
    assert isinstance(made[2], nn.Conv2d)
    assert made[2].out_channels == 2


def test_the_same_seed_gives_the_same_head(model: Model, context: Context) -> None:
    one, other = (ReplaceHead()(model, context).model.torch_module().head.weight for _ in range(2))
    assert torch.equal(one, other)


def test_what_is_no_head_is_told(model: Model, context: Context) -> None:
    with pytest.raises(PassError, match=r"called 'body\.2'"):
        ReplaceHead(layer="body.2")(model, context)
    with pytest.raises(PassError, match="does not work with another number of classes"):
        ReplaceHead(layer="body.1")(model, context)
    with pytest.raises(RecipeError, match="at least two classes"):
        ReplaceHead(classes=1)


@pytest.mark.parametrize(
    ("labels", "words"),
    [(None, "give --train"), (np.zeros(4), "integer label"), (np.zeros(4, np.int64), "one class only")],
)
def test_labels_that_name_no_classes_are_told(labels: np.ndarray | None, words: str) -> None:
    with pytest.raises(PassError, match=words):
        count_classes(DataSet({"x": np.zeros((4, 1))}, labels))


def test_freezing_goes_by_names_of_layers_and_of_parameters(model: Model) -> None:
    module = model.torch_module()
    assert frozen_parameters(module, ["body.1"]) == {"body.1.weight", "body.1.bias"}
    assert frozen_parameters(module, ["body"]) == {
        f"body.{i}.{p}" for i in (1, 2) for p in ("weight", "bias")
    }
    assert frozen_parameters(module, ["*.bias"]) == {"body.1.bias", "body.2.bias", "head.bias"}
    with pytest.raises(PassError, match="its layers are head, body"):
        frozen_parameters(module, ["stem*"])


def test_all_but_the_head_is_frozen_and_stays(model: Model, context: Context) -> None:
    frozen = Freeze()(model, context).model
    assert all(parameter.requires_grad for parameter in model.torch_module().parameters())
    result = FineTune(QUICK)(frozen, context).model.torch_module()
    before = model.torch_module().state_dict()
    changed = {name for name, value in result.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    thawed = Freeze(())(frozen, context)
    assert all(parameter.requires_grad for parameter in thawed.model.torch_module().parameters())
    assert thawed.notes == ("Thawed every layer.",)


def test_freezing_everything_is_refused(model: Model, context: Context) -> None:
    with pytest.raises(PassError, match="leaves nothing to train"):
        Freeze(head=True)(model, context)


def test_a_transferred_model_knows_the_new_classes(model: Model, data: DataSet) -> None:
    settings = TransferSettings(head_training=QUICK, whole_training=QUICK)
    told = list[str]()
    result = transfer(model, data, settings, Surroundings(progress=lambda what, *_: told.append(what)))
    assert accuracy(result.model, data) > 0.8
    assert result.model.output_names == model.output_names
    assert result.notes[0] == "Transferred to 300 samples of a new task."
    assert set(told) == {"training"}
    alone = transfer(model, data, TransferSettings(head_training=QUICK, whole_training=None))
    assert accuracy(alone.model, data) < accuracy(result.model, data)


def test_the_original_with_another_head_cannot_teach(model: Model, data: DataSet, tmp_path: Path) -> None:
    context = Context(workspace=tmp_path, calibration=data, training=data, baseline=model.torch_module())
    result = FineTune(QUICK)(ReplaceHead()(model, context).model, context)
    assert result.notes[0] == "The original answers in another shape and could not teach."
    assert "with labels for 3 epochs" in result.notes[1]


def test_a_transfer_ends_with_its_time(model: Model, data: DataSet) -> None:
    with pytest.raises(OutOfTimeError):
        transfer(model, data, surroundings=Surroundings(deadline=0.0))


def test_a_transfer_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="freezes some layers at first"):
        TransferSettings(frozen=())
