import pytest

pytest.importorskip("torch")
import torch

from demo.efficientnet import ConvUnit, EfficientNetLite0, renamed

pytestmark = pytest.mark.torch


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(weights.numel() for weights in EfficientNetLite0().parameters()) == 4_652_008


def test_it_gives_one_logit_for_each_class() -> None:
    with torch.inference_mode():
        assert EfficientNetLite0().eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 2, 112), (5, 2, 112), (3, 1, 224), (5, 1, 224)])
def test_same_padding_divides_the_side_by_the_stride(kernel: int, stride: int, side: int) -> None:
    unit = ConvUnit(1, 1, kernel, stride)
    assert unit(torch.zeros(1, 1, 224, 224)).shape[-2:] == (side, side)


def test_padding_at_stride_two_is_lopsided_as_in_tensorflow() -> None:
    unit = ConvUnit(1, 1, 3, 2)
    padded = unit.pad(torch.ones(1, 1, 4, 4))[0, 0]
    assert padded.shape == (5, 5)
    assert padded[0, 0] == 1
    assert padded[-1].abs().sum() == 0


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("_bn1.weight", "head.norm.weight"),
        ("_blocks.3._bn1.bias", "blocks.3.depthwise.norm.bias"),
        ("_fc.weight", "classifier.weight"),
    ],
)
def test_published_names_become_ours(published: str, ours: str) -> None:
    assert renamed(published) == ours
