"""Fixtures of the torch part: tiny networks and data, and skipping all of it where torch is missing."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn

    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet

HERE = Path(__file__).parent
collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture
def images(quarters: Callable[..., "DataSet"]) -> "DataSet":
    return quarters(400)


@pytest.fixture
def make_context(tmp_path: Path, images: "DataSet") -> Callable[..., "Context"]:
    from flyweight.compressor.context import Context

    def make(**changes: object) -> "Context":
        settings = {"workspace": tmp_path / "work", "calibration": images, "training": images, **changes}
        return Context(**settings)

    return make


@pytest.fixture
def context(make_context: Callable[..., "Context"]) -> "Context":
    return make_context()


@pytest.fixture
def residual() -> "nn.Module":
    """A residual network of 32 channels for 1x8x8 images and four classes, its normalisation not trivial."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 32, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(32)
            self.inner = nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.inner_norm = nn.BatchNorm2d(32)
            self.outer = nn.Conv2d(32, 32, 3, padding=1, bias=False)
            self.outer_norm = nn.BatchNorm2d(32)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(32, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            wide = torch.relu(self.norm(self.stem(image)))
            inner = torch.relu(self.inner_norm(self.inner(wide)))
            features = torch.relu(self.outer_norm(self.outer(inner)) + wide)
            return self.head(torch.flatten(self.pool(features), 1))

    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Residual().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module
