"""Cutting channels out of modules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.prune.channels import (
    CutSettings,
    by_gradient,
    by_magnitude,
    cut_channels,
    kept_channels,
)
from flyweight.compressor.passes.prune.coupling import Couplings

HALF = CutSettings(0.5)
IMAGE = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize(
    ("channels", "keep", "kept"),
    [
        (128, 0.5, 64),
        (32, 0.5, 16),
        (96, 0.5, 48),
        (100, 0.5, 48),  # 50 is nearer to 48 than to 64
        (64, 0.3, 16),
        (64, 0.01, 16),  # never none
        (24, 0.5, 16),  # too few for steps of 16: a multiple of 8, ties to even
        (16, 0.5, 8),
        (8, 0.5, 8),
        (3, 0.5, 3),
        (33, 1.0, 33),  # all stay, though 33 is no multiple
    ],
)
def test_kept_channels(channels: int, keep: float, kept: int) -> None:
    assert kept_channels(channels, CutSettings(keep)) == kept


@given(st.integers(1, 4096), st.floats(0.01, 1.0), st.sampled_from([1, 8, 16, 32]))
def test_kept_channels_are_aligned_or_all(channels: int, keep: float, round_to: int) -> None:
    kept = kept_channels(channels, CutSettings(keep, round_to))
    assert 1 <= kept <= channels
    assert kept == channels or kept % min(8, round_to) == 0


@given(st.integers(1, 4096), st.sampled_from([1, 8, 16, 32]))
def test_keeping_everything_keeps_everything(channels: int, round_to: int) -> None:
    assert kept_channels(channels, CutSettings(1.0, round_to)) == channels


def test_a_residual_network_becomes_half_as_wide_and_its_output_keeps_its_width(residual: nn.Module) -> None:
    cut = cut_channels(residual, [IMAGE], HALF, by_magnitude())
    assert cut.channels == {"stem": (32, 16), "inner": (32, 16), "outer": (32, 16)}
    # 9*16 + 2*(9*16*16) filters, three normalisations of 2*16, 16*4 + 4 in the head.
    assert sum(parameter.numel() for parameter in cut.module.parameters()) == 144 + 4608 + 96 + 68
    assert cut.module(torch.zeros(3, 1, 8, 8)).shape == (3, 4)


def test_the_original_is_not_touched(residual: nn.Module) -> None:
    before = {name: value.clone() for name, value in residual.state_dict().items()}
    cut_channels(residual, [IMAGE], HALF, by_magnitude())
    for name, value in residual.state_dict().items():
        assert torch.equal(value, before[name])


def test_cutting_dead_channels_changes_no_answer(residual: nn.Module) -> None:
    """Half of every layer's channels is made zero: pruning half must find exactly those."""
    dead = torch.arange(32) % 2 == 1
    with torch.no_grad():
        for layer in residual.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight[dead] = 0.0
            elif isinstance(layer, nn.BatchNorm2d):
                for vector in (layer.weight, layer.bias, layer.running_mean):
                    vector[dead] = 0.0
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cut = cut_channels(residual, [IMAGE], HALF, by_magnitude())
    assert len(cut.channels) == 3
    torch.testing.assert_close(cut.module(images), residual(images), rtol=1e-5, atol=1e-5)


def test_gradients_decide_where_they_are_asked(residual: nn.Module) -> None:
    """A channel of large weights that moves no loss goes before one of small weights that does."""
    with torch.no_grad():
        residual.inner.weight[:16] *= 100.0
    for parameter in residual.parameters():
        parameter.grad = torch.ones_like(parameter)
    for parameter in (residual.inner.weight, residual.inner_norm.weight, residual.inner_norm.bias):
        parameter.grad[:16] = 0.0
    residual.outer.weight.grad[:, :16] = 0.0
    by_size = cut_channels(residual, [IMAGE], HALF, by_magnitude()).module
    by_effect = cut_channels(residual, [IMAGE], HALF, by_gradient()).module
    assert float(by_size.inner.weight.detach().abs().max()) > 1
    assert float(by_effect.inner.weight.detach().abs().max()) < 1


def test_a_cut_module_carries_no_gradients(residual: nn.Module) -> None:
    cut = cut_channels(residual, [IMAGE], HALF, by_magnitude())
    assert all(parameter.grad is None for parameter in cut.module.parameters())


def test_depthwise_filters_follow_the_layer_they_read() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 32, 1),
        nn.Conv2d(32, 32, 3, groups=32),
        nn.Conv2d(32, 16, 1),
        nn.Flatten(),
        nn.Linear(576, 4),
    ).eval()
    cut = cut_channels(module, [IMAGE], HALF, by_magnitude())
    assert cut.channels == {"0": (32, 16), "1": (32, 16), "2": (16, 8)}
    assert cut.module[4].in_features == 8 * 36


def test_layers_that_are_concatenated_are_cut_each() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(1, 32, 1), nn.Conv2d(1, 64, 1)
            self.head = nn.Conv2d(96, 4, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([self.left(image), self.right(image)], dim=1))

    cut = cut_channels(Branches().eval(), [IMAGE], HALF, by_magnitude())
    assert cut.channels == {"left": (32, 16), "right": (64, 32)}
    assert cut.module.head.in_channels == 48


def test_the_output_layer_is_found_through_what_follows_it() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.Softmax(dim=1))
    assert list(Couplings(module.eval(), [IMAGE]).fixed) == [module[3]]


def test_frozen_parameters_can_be_cut(residual: nn.Module) -> None:
    residual.requires_grad_(False)
    assert cut_channels(residual, [IMAGE], HALF, by_magnitude()).channels


def test_a_module_with_a_width_in_its_forward_is_refused() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 32, 1, stride=4), nn.Linear(32 * 4, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(image).reshape(len(image), 32, 4).flatten(1))

    with pytest.raises(PassError, match=r"channels"):
        cut_channels(Stubborn().eval(), [IMAGE], HALF, by_magnitude())


def test_layers_that_cannot_be_cut_are_left_whole_and_the_others_are_cut() -> None:
    class Attention(nn.Module):
        """One block of a transformer with two heads, as most write it."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.norm = nn.LayerNorm(32)
            self.wide, self.narrow = nn.Linear(32, 128), nn.Linear(128, 32)
            self.head = nn.Linear(32, 4)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            rows, length, _ = tokens.shape
            q, k, v = self.qkv(tokens).reshape(rows, length, 3, 2, 16).permute(2, 0, 3, 1, 4)
            mixed = torch.softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v
            tokens = tokens + self.out(mixed.transpose(1, 2).reshape(rows, length, 32))
            tokens = tokens + self.narrow(torch.relu(self.wide(self.norm(tokens))))
            return self.head(tokens.mean(dim=1))

    cut = cut_channels(Attention().eval(), [torch.zeros(1, 5, 32)], HALF, by_magnitude())
    assert cut.channels == {"wide": (128, 64)}
    assert cut.module(torch.zeros(2, 7, 32)).shape == (2, 4)


def test_a_module_without_layers_to_cut_says_so() -> None:
    with pytest.raises(PassError, match="no convolution or linear layer"):
        cut_channels(nn.ReLU(), [torch.ones(1, 4)], CutSettings(0.5), by_magnitude())
