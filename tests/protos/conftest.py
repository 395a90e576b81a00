"""A published variant to look at and to damage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyweight.protos.manifest.v1.manifest_pb2 import Golden, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden

SAMPLES = GoldenSamples(
    inputs={"image": np.arange(6, dtype=np.float32).reshape(1, 6)},
    outputs={"score": np.array([[0.25, 0.75]], np.float32), "class/of": np.array([1], np.int64)},
)


@pytest.fixture
def manifest() -> VariantManifest:
    golden = Golden(file=GOLDEN_FILE, relative_tolerance=1e-4)
    return VariantManifest(model="digits", variant="int8", kind="static int8", golden=golden)


@pytest.fixture
def fill() -> Callable[[Path], None]:
    """Writes a variant's files: a model, its data in a folder below, golden samples."""

    def write(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"a model")
        (folder / "data").mkdir()
        (folder / "data" / "weights").write_bytes(b"some weights")
        write_golden(folder, SAMPLES)

    return write


@pytest.fixture
def variant(tmp_path: Path, manifest: VariantManifest, fill: Callable[[Path], None]) -> Path:
    """The folder of a published variant."""
    return publish_variant(tmp_path / "repository", manifest, fill)
