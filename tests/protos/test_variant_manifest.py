"""manifest.json is read with care: whatever is wrong with it is one sentence."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import FileDigest, VariantManifest
from flyweight.protos.variant import MANIFEST_FILE, read_manifest
from flyweight.protos.variant.manifest import write_manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from([field.name for field in VariantManifest.DESCRIPTOR.fields])


def write(folder: Path, document: Any) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(document), encoding="utf-8")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = VariantManifest(
        model="digits", variant="int8", files=[FileDigest(path="model.onnx", size_bytes=2**53 + 1)]
    )
    manifest.lineage.tools["onnxruntime"] = "1.31.1"
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_the_file_is_json_with_the_contracts_names(tmp_path: Path) -> None:
    write_manifest(tmp_path, VariantManifest(model="digits"))
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == {"format_version": 1, "model": "digits"}


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_fields_of_a_later_writer_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"format_version": 1, "model": "digits", "horoscope": {"sign": "virgo"}})
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.model == "digits"


@pytest.mark.parametrize(
    "document", [{"format_version": 2, "model": {"changed": "type"}}, {"model": "digits"}]
)
def test_another_format_is_refused_before_its_parts_are_read(tmp_path: Path, document: Any) -> None:
    write(tmp_path, document)
    with pytest.raises(
        ManifestError, match=r"has (no format version|format version 2), and this flyweight reads 1"
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"5",
        b"null",
        b"[" * 100_000,
        b'{"format_version": 1, "model": 5}',
        b'{"format_version": 1, "files": {}}',
        b'{"format_version": 1, "files": [{"size_bytes": -1}]}',
        b'{"format_version": 1, "golden": {"relative_tolerance": "much"}}',
    ],
)
def test_garbage_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(text)
    with pytest.raises(ManifestError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST_FILE).open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(ManifestError, match="too many for a manifest"):
        read_manifest(tmp_path)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, JSON, max_size=3) | JSON)
def test_no_document_raises_anything_else(tmp_path: Path, document: Any) -> None:
    if isinstance(document, dict):
        document["format_version"] = 1
    write(tmp_path, document)
    with suppress(ManifestError):
        assert isinstance(read_manifest(tmp_path), VariantManifest)
