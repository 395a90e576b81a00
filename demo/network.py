"""The demo's network: a small residual convnet for 32x32 images (He et al. 2016, basic blocks)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flyweight.compressor.training import TrainingSettings, seeded

WIDTHS = (32, 64, 128)
"""Channels of the three stages: multiples of 32, so that half of them still fill a 512-bit register."""

DEMO_TRAINING = TrainingSettings(epochs=12)
"""Enough for 99 % on digits, in a quarter of a minute on one core.

Train on one thread: a second one halves the time on an idle machine, but on a busy one the two wait for each
other at every layer, and the same training takes many times as long.
"""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of shape (rows, channels_out, height / stride, width / stride)."""
        inner = torch.relu(self.norm1(self.conv1(features)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))


class ResidualNet(nn.Module):
    """A stem that halves the image, one residual block per stage, global pooling, a linear classifier.

    With the default widths: 0.3 million parameters and 12 million multiply-adds for a 1x32x32 image.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.stages = nn.Sequential(
            *(Block(a, b, stride=1 if index == 0 else 2) for index, (a, b) in enumerate(pairs))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, shape (rows, classes), for images of shape (rows, in_channels, 32, 32)."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.stages(self.stem(image))), 1))
        return logits


def network(seed: int = 0) -> ResidualNet:
    """Return the demo's network, with weights drawn by `seed`; `flyweight compress --module` can call it."""
    with seeded(seed):
        return ResidualNet()
