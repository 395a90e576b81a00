"""A variant's files are those of the manifest, or the reader is told which is not."""

import os
from pathlib import Path

import pytest

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import FileDigest, VariantManifest
from flyweight.protos.variant import read_manifest, verify_digests
from flyweight.protos.variant.digests import sha256_of


def verify(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    verify_digests(folder, manifest)


def test_every_file_but_the_manifest_is_listed(variant: Path) -> None:
    manifest = read_manifest(variant)
    assert manifest is not None
    assert [entry.path for entry in manifest.files] == ["data/weights", "golden.npz", "model.onnx"]
    verify(variant)


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # Source: FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file_is_named(variant: Path) -> None:
    (variant / "data" / "weights").unlink()
    with pytest.raises(ManifestError, match=r"data/weights is listed in the manifest but is not there"):
        verify(variant)


def test_a_truncated_file_is_named(variant: Path) -> None:
    os.truncate(variant / "model.onnx", 3)
    with pytest.raises(ManifestError, match=r"model\.onnx has 3 bytes where the manifest says 7"):
        verify(variant)


def test_an_altered_file_of_the_same_length_is_named(variant: Path) -> None:
    (variant / "model.onnx").write_bytes(b"A model")
    with pytest.raises(ManifestError, match=r"model\.onnx has SHA-256 .* where the manifest says"):
        verify(variant)


def test_a_folder_in_a_files_place_is_named(variant: Path) -> None:
    (variant / "model.onnx").unlink()
    (variant / "model.onnx").mkdir()
    with pytest.raises(ManifestError, match=r"model\.onnx is listed in the manifest but is not there"):
        verify(variant)


def test_a_link_that_leads_out_is_refused_though_its_bytes_are_right(variant: Path, tmp_path: Path) -> None:
    (variant / "model.onnx").rename(tmp_path / "elsewhere")
    (variant / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="leads out of the variant's folder"):
        verify(variant)


def test_a_link_in_a_circle_is_refused(variant: Path) -> None:
    (variant / "model.onnx").unlink()
    (variant / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(ManifestError, match=r"model\.onnx is listed in the manifest but is not there"):
        verify(variant)


@pytest.mark.parametrize("path", ["/etc/passwd", "../baseline/model.onnx", ""])
def test_a_path_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    manifest = VariantManifest(files=[FileDigest(path=path)])
    with pytest.raises(ManifestError, match="outside the variant's folder"):
        verify_digests(tmp_path, manifest)


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ManifestError):
        verify_digests(tmp_path, VariantManifest(files=[FileDigest(path=path)]))
