"""Distillation from features, and augmentation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.distill.augmentation import Augmentation, mixed, shifted
from flyweight.compressor.passes.distill.feature_losses import (
    Regressors,
    attention_loss,
    attention_map,
    hint_loss,
)
from flyweight.compressor.passes.distill.features import Pair, caught, features_of, pair_layers
from flyweight.compressor.passes.distill.hints import HintDistillation, Transfer
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.distill.soft_labels import SoftLabelDistillation
from flyweight.compressor.passes.narrow.width import NarrowWidth
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import Rows, TrainingSettings, rows_of, seeded, train

QUICK = TrainingSettings(epochs=2, batch_rows=32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_hint_loss_is_the_squared_distance_over_the_variance() -> None:
    """Teacher 1, 3 (variance 1), student 0, 0: (1 + 9) / 2."""
    assert float(hint_loss(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))) == pytest.approx(5.0)
    assert float(hint_loss(torch.full((1, 2), 2.0), torch.tensor([[1.0, 3.0]]))) == pytest.approx(1.0)


def test_an_attention_map_by_hand() -> None:
    """Two channels of two places: 9 + 16 and 0 + 144, divided by the length of (25, 144)."""
    features = torch.tensor([[[[3.0, 0.0]], [[4.0, 12.0]]]])
    expected = torch.tensor([[25.0, 144.0]]) / (25.0**2 + 144.0**2) ** 0.5
    torch.testing.assert_close(attention_map(features, 1), expected)


def test_the_attention_loss_is_one_minus_the_cosine() -> None:
    one, other = random(5, 3, 4, 4), random(5, 6, 4, 4, seed=1)
    maps = [features.pow(2).sum(dim=1).flatten(1) for features in (one, other)]
    expected = (1 - nn.functional.cosine_similarity(*maps)).mean()
    assert float(attention_loss(one, other, 1)) == pytest.approx(float(expected), rel=1e-5)
    assert float(attention_loss(one, one * 7, 1)) == pytest.approx(0.0, abs=1e-6)


def test_attention_has_a_gradient_where_student_and_teacher_agree() -> None:
    features = random(2, 3, 4, 4).requires_grad_()
    attention_loss(features, features.detach(), 1).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_a_regressor_is_a_convolution_of_1x1() -> None:
    with seeded(0):
        regressors = Regressors([Pair("a", "a", 1, (3, 5)), Pair("b", "b", 1, (4, 4))])
    features = random(2, 3, 4, 4)
    linear = regressors.maps[0]
    assert isinstance(linear, nn.Linear)
    expected = nn.functional.conv2d(features, linear.weight[:, :, None, None], linear.bias)
    torch.testing.assert_close(regressors.translate(0, features), expected)
    assert regressors.translate(1, features) is not None
    assert isinstance(regressors.maps[1], nn.Identity)


def test_features_are_caught_and_let_go(residual: nn.Module) -> None:
    image = random(2, 1, 8, 8)
    with caught(residual, ["inner"]) as features:
        residual(image)
        assert features["inner"].shape == (2, 32, 8, 8)
    assert not residual.inner._forward_hooks


def test_the_models_own_answer_is_no_feature(residual: nn.Module) -> None:
    shapes = features_of(residual, [random(1, 1, 8, 8)])
    assert "head" not in shapes
    assert list(shapes)[:2] == ["stem", "norm"]


def test_a_narrow_copy_is_paired_by_name(residual: nn.Module, images: DataSet, context: Context) -> None:
    narrow = NarrowWidth(0.5)(model_of(residual, images), context).model.torch_module()
    pairs = pair_layers(narrow, residual, [random(1, 1, 8, 8)])
    assert pairs == [Pair("outer_norm", "outer_norm", 1, (16, 32))]
    chosen = pair_layers(narrow, residual, [random(1, 1, 8, 8)], ["inner*"])
    assert [pair.student for pair in chosen] == ["inner", "inner_norm"]


def test_without_common_names_layers_of_one_spatial_shape_are_paired(residual: nn.Module) -> None:
    with seeded(0):
        other = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    pairs = pair_layers(other.eval(), residual, [random(1, 1, 8, 8)])
    assert pairs == [Pair("1", "outer_norm", 1, (8, 32))]


def test_what_cannot_be_paired_is_told(residual: nn.Module) -> None:
    image = [random(1, 1, 8, 8)]
    with pytest.raises(PassError, match="called like 'stage'"):
        pair_layers(residual, residual, image, ["stage"])
    small = nn.Sequential(nn.Conv2d(1, 8, 3, stride=3), nn.Flatten(), nn.Linear(32, 4)).eval()
    with pytest.raises(PassError, match="distil from its answers alone"):
        pair_layers(small, residual, image)


@pytest.mark.parametrize("transfer", list(Transfer))
def test_students_learn_from_features(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context], transfer: Transfer
) -> None:
    unlabelled = DataSet(images.inputs)
    context = make_context(calibration=unlabelled, training=None, baseline=residual)
    narrow = NarrowWidth(0.5)(model_of(residual, unlabelled), context).model
    result = HintDistillation(QUICK, transfer=transfer)(narrow, context)
    assert f"The {transfer.value} came from 1 layers (outer_norm the last)" in result.notes[-1]
    assert "epoch 0 was kept" not in result.notes[0]
    assert not residual.outer_norm._forward_hooks


def test_hints_need_the_original(residual: nn.Module, images: DataSet, context: Context) -> None:
    with pytest.raises(PassError, match="use distill"):
        HintDistillation(QUICK)(model_of(residual, images), context)
    with pytest.raises(RecipeError):
        HintDistillation(weight=0.0)


def test_mixed_rows_lie_between_two_of_them() -> None:
    """All inputs of a row by the same weight: their ratio stays."""
    generator = torch.Generator().manual_seed(0)
    one = torch.arange(8.0)[:, None]
    first, second = mixed((one, one[:, :, None] * 3), 0.4, generator)
    torch.testing.assert_close(second[:, 0], first * 3)
    assert ((first >= 0) & (first <= 7)).all()
    assert not torch.equal(first, one)


def test_shifted_images_keep_their_shape_and_move_whole() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1.0
    (moved,) = shifted((image,), 1, torch.Generator().manual_seed(3))
    assert moved.shape == image.shape
    assert float(moved.sum()) == 1.0


def test_the_teacher_answers_for_changed_inputs(residual: nn.Module, images: DataSet) -> None:
    rows = rows_of(images.first(20), ["image"])
    hook = Augmentation(mixup=1.0, shift=1, flip=True).hook(rows, residual)
    assert hook is not None
    unlabelled = Rows(rows.inputs)
    changed = hook(unlabelled, torch.Generator().manual_seed(0))
    assert changed.labels is None
    assert changed.teacher is not None
    assert not torch.equal(changed.inputs[0], rows.inputs[0])
    with torch.no_grad():
        torch.testing.assert_close(changed.teacher[0], residual(changed.inputs[0]))


def test_rows_with_labels_stay_as_they_are_in_about_half_of_the_steps(
    residual: nn.Module, images: DataSet
) -> None:
    rows, generator = rows_of(images.first(4), ["image"]), torch.Generator().manual_seed(0)
    hook = Augmentation(flip=True).hook(rows, residual)
    assert hook is not None
    kept = sum(hook(rows, generator) is rows for _ in range(40))
    assert 10 < kept < 30


def test_few_samples_without_labels_are_enough(
    residual: nn.Module, images: DataSet, make_context: Callable[..., Context]
) -> None:
    train(residual, rows_of(images, ["image"]), TrainingLoss(), QUICK, make_context())
    few = DataSet({"image": images.inputs["image"][:40]})
    context = make_context(calibration=few, training=None, baseline=residual)
    narrow = NarrowWidth(0.5)(model_of(residual, few), context).model
    settings = TrainingSettings(epochs=30, batch_rows=20)
    step = SoftLabelDistillation(settings, augmentation=Augmentation(shift=1, flip=True))
    student = step(narrow, context).model.torch_module()
    inputs = rows_of(images, ["image"]).inputs[0][40:]
    with torch.no_grad():
        agreement = (student(inputs).argmax(dim=1) == residual(inputs).argmax(dim=1)).float().mean()
    assert float(agreement) > 0.9


def test_augmentation_that_cannot_be_is_told() -> None:
    teacher = nn.Linear(4, 2)
    numbers, words = Rows((torch.zeros(2, 4),)), Rows((torch.zeros(2, 4, dtype=torch.int64),))
    assert Augmentation().hook(numbers, None) is None
    with pytest.raises(PassError, match="needs the original"):
        Augmentation(mixup=0.2).hook(numbers, None)
    with pytest.raises(PassError, match="takes integers"):
        Augmentation(mixup=0.2).hook(words, teacher)
    with pytest.raises(PassError, match="Only images"):
        Augmentation(flip=True).hook(numbers, teacher)
    with pytest.raises(RecipeError):
        Augmentation(mixup=-1.0)
