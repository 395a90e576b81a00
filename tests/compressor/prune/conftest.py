"""Fixtures of pruning: contexts and data; what needs torch is skipped without it."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet

WITHOUT_TORCH = {
    "test_masks.py",
    "test_schedule.py",
    "test_allocation.py",
    "test_choice.py",
    "test_divergence.py",
    "test_sparsify_graph.py",
}
HERE = Path(__file__).parent
collect_ignore = (
    []
    if find_spec("torch")
    else [path.name for path in HERE.glob("test_*.py") if path.name not in WITHOUT_TORCH]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.path.name not in WITHOUT_TORCH:
            item.add_marker(pytest.mark.torch)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads."""
    if find_spec("torch") is None:
        yield
        return
    from flyweight.compressor.training import threads

    with threads(1):
        yield


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., Context]:
    def make(data: DataSet, **changes: object) -> Context:
        return Context(workspace=tmp_path / "work", calibration=data, **changes)

    return make


@pytest.fixture
def images() -> DataSet:
    """320 images of 8x8 in four classes: which quarter is bright."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 320)
    pixels = generator.normal(0.0, 0.5, (320, 1, 8, 8)).astype(np.float32)
    for image, label in zip(pixels, labels, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[0, top : top + 4, left : left + 4] += 1.0
    return DataSet({"image": pixels}, labels)


@pytest.fixture
def tokens() -> DataSet:
    """48 sequences of six tokens of 32 features."""
    return DataSet({"tokens": np.random.default_rng(0).normal(size=(48, 6, 32)).astype(np.float32)})
