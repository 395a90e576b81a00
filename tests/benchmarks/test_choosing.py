"""Schedules are chosen on training images that are left out: the test images are not even read."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.source]

IMAGES, LEFT_OUT = 30, 10


@pytest.fixture
def training_files(tmp_path: Path) -> Path:
    """Write the two training files of Fashion-MNIST, image i all of value i, and no test files."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    pixels = np.repeat(np.arange(IMAGES, dtype=np.uint8), 28 * 28)
    head = np.array([IMAGES, 28, 28], ">u4").tobytes()
    content = {"images-idx3": b"\0\0\x08\x03" + head + pixels.tobytes()}
    content["labels-idx1"] = b"\0\0\x08\x01" + head[:4] + (np.arange(IMAGES, dtype=np.uint8) % 10).tobytes()
    for name, part in content.items():
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(part))
    return tmp_path


def test_deep_compression_chooses_without_the_test_images(
    script: Callable[[str], ModuleType], training_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("deep_compression")
    monkeypatch.setattr(module, "CHOOSING_ROWS", LEFT_OUT)
    training, judged = module.load(training_files, quick=False, choose=True)
    assert (training.samples, judged.samples) == (IMAGES - LEFT_OUT, LEFT_OUT)
    np.testing.assert_allclose(judged.inputs["image"][:, 0, 0, 0] * 255, np.arange(20, 30), rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        module.load(training_files, quick=False, choose=False)


def test_the_convnet_chooses_without_the_test_images(
    script: Callable[[str], ModuleType], training_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("fashion_convnet")
    monkeypatch.setattr(module, "CHOOSING_ROWS", LEFT_OUT)
    training, judged = module.held_out(module.fashion(training_files, "train"))
    assert (training.samples, judged.samples) == (IMAGES - LEFT_OUT, LEFT_OUT)
    np.testing.assert_array_equal(judged.labels, np.arange(10))
