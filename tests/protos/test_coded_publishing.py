"""Publishing a coded model in a plain one's place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.protos.errors import ManifestError, RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant, read_manifest, verify_digests


def writer(*names: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(name.encode())

    return fill


def test_a_coded_model_is_published_with_its_digest(tmp_path: Path) -> None:
    manifest = VariantManifest(model="digits", variant="coded")
    folder = publish_variant(tmp_path, manifest, writer("model.onnx.fw"))
    found = read_manifest(folder)
    assert found is not None
    assert [entry.path for entry in found.files] == ["model.onnx.fw"]
    verify_digests(folder, found)
    (folder / "model.onnx.fw").write_bytes(b"MODEL.onnx.fw")
    with pytest.raises(ManifestError, match="has SHA-256"):
        verify_digests(folder, found)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ("model.onnx", "model.onnx.fw"),
            r"was given both model\.onnx and model\.onnx\.fw; write one of them",
        ),
        (("other.fw",), r"was given no model\.onnx"),
    ],
)
def test_a_variant_has_one_model(tmp_path: Path, names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RepositoryError, match=sentence):
        publish_variant(tmp_path, VariantManifest(model="digits", variant="coded"), writer(*names))
    assert not (tmp_path / "digits" / "coded").exists()
