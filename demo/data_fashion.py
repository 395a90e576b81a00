"""Fashion-MNIST: 70,000 images of clothes, 28x28 pixels, in ten classes, as gzip-compressed IDX files."""

import gzip
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from demo.errors import DemoDataError
from demo.task import IMAGE
from flyweight.compressor.data import DataSet

USUAL_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
# All there are: to train on, and to judge with.
ROWS: Final = (60_000, 10_000)
DESCRIPTION: Final = "Fashion-MNIST (Zalando Research), 28x28 padded to 32x32"
# 28 pixels and 2 of background on each side make the 32 that the network takes.
_PADDING: Final = 2
_UNSIGNED_BYTES: Final = 0x08


def load(folder: Path | None, seed: int, training_rows: int, evaluation_rows: int) -> tuple[DataSet, DataSet]:
    """Return so many samples of the training set and of the test set, drawn by `seed`.

    Raises:
        DemoDataError: the files are not there or are damaged.
    """
    place = folder or USUAL_FOLDER
    generator = np.random.default_rng(seed)
    return (
        _read_part(place, "train", training_rows, generator),
        _read_part(place, "t10k", evaluation_rows, generator),
    )


def _read_part(folder: Path, part: str, rows: int, generator: np.random.Generator) -> DataSet:
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if len(images) != len(labels) or images.ndim != 3:
        raise DemoDataError(f"{folder} holds {len(images)} images and {len(labels)} labels; copy it again.")
    chosen = np.sort(generator.permutation(len(images))[:rows])
    padding = ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING))
    pixels = np.pad(images[chosen].astype(np.float32) / 255.0, padding)
    return DataSet({IMAGE: pixels[:, None]}, labels[chosen].astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzip-compressed IDX file of unsigned bytes (yann.lecun.com/exdb/mnist, "the IDX file format").

    Raises:
        DemoDataError: the file is missing or is not such a file.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DemoDataError(
            f"Fashion-MNIST is not there ({path} is missing): install the Debian package "
            "dataset-fashion-mnist, or give a folder with DATA_FOLDER=... (make) or --data-folder."
        ) from error
    except (OSError, EOFError) as error:
        raise DemoDataError(f"{path} cannot be read ({error}); copy it again.") from error
    return _parsed(path, content)


def _parsed(path: Path, content: bytes) -> NDArray[Any]:
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTES]):
        raise DemoDataError(f"{path} is not an IDX file of unsigned bytes; copy it again.")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4).astype(np.int64)
    if len(content) != 4 + 4 * axes + int(shape.prod()):
        raise DemoDataError(f"{path} has {len(content)} bytes, not what its header says; copy it again.")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)
