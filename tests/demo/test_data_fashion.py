import gzip
from pathlib import Path

import numpy as np
import pytest

from demo import data_fashion
from demo.errors import DemoDataError
from demo.task import IMAGE


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def fashion_folder(tmp_path: Path) -> Path:
    """Twenty random images and labels in the files of Fashion-MNIST."""
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", generator.integers(0, 256, (20, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", generator.integers(0, 10, 20))
    return tmp_path


def test_images_are_padded_to_what_the_network_takes(fashion_folder: Path) -> None:
    training, evaluation = data_fashion.load(fashion_folder, 0, 12, 5)
    assert (training.samples, evaluation.samples) == (12, 5)
    images = training.inputs[IMAGE]
    assert images.shape == (12, 1, 32, 32)
    assert images[:, :, :2].max() == 0
    assert images.max() == 1


def test_drawn_images_keep_their_labels(fashion_folder: Path) -> None:
    images = data_fashion.read_idx(fashion_folder / "train-images-idx3-ubyte.gz")
    labels = data_fashion.read_idx(fashion_folder / "train-labels-idx1-ubyte.gz")
    by_image = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    training, _ = data_fashion.load(fashion_folder, 0, 12, 5)
    assert training.labels is not None
    for image, label in zip(training.inputs[IMAGE], training.labels, strict=True):
        pixels = np.rint(image[0, 2:-2, 2:-2] * 255).astype(np.uint8)
        assert by_image[pixels.tobytes()] == label


def test_missing_files_say_which_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(DemoDataError, match=r"dataset-fashion-mnist.*DATA_FOLDER"):
        data_fashion.load(tmp_path, 0, 1, 1)


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"\0\0\x0d\1\0\0\0\0"), gzip.compress(b"\0\0\x08\1\0\0\0\5abc")],
    ids=["not compressed", "other type", "cut short"],
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DemoDataError, match=r"x\.gz"):
        data_fashion.read_idx(tmp_path / "x.gz")
