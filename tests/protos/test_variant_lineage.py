"""Where a published variant comes from, and every way in which that can be untrue."""

from pathlib import Path

import pytest

from flyweight.protos.manifest.v1.manifest_pb2 import Lineage, VariantManifest
from flyweight.protos.variant import MODEL_FILE, publish_variant
from flyweight.protos.variant.digests import sha256_of
from flyweight.protos.variant.lineage import lineage_faults

BASE, SMALL = b"the original", b"half"


def publish(repository: Path, variant: str, content: bytes, lineage: Lineage) -> Path:
    manifest = VariantManifest(model="net", variant=variant, lineage=lineage)
    return publish_variant(
        repository, manifest, lambda folder: (folder / MODEL_FILE).write_bytes(content) and None
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    base = publish(tmp_path, "baseline", BASE, Lineage(data_sha256="d"))
    lineage = Lineage(
        parent="baseline", parent_sha256=sha256_of(base / MODEL_FILE), recipe="name: small", data_sha256="d"
    )
    return publish(tmp_path, "small", SMALL, lineage)


def test_what_was_published_whole_has_no_fault(small: Path) -> None:
    assert lineage_faults(small) == ()
    assert lineage_faults(small.parent / "baseline") == ()


def test_a_file_that_was_altered_is_named(small: Path) -> None:
    (small / MODEL_FILE).write_bytes(b"hal!")
    (fault,) = lineage_faults(small)
    assert "where the manifest says" in fault


def test_a_file_that_nobody_listed_is_named(small: Path) -> None:
    (small / "notes.txt").write_text("x")
    (small / ".hidden").write_text("x")
    assert lineage_faults(small) == (
        f"{small / 'notes.txt'} is not listed in the manifest; remove it or publish the variant again.",
    )


def test_a_copy_under_another_name_is_noticed(small: Path) -> None:
    small.rename(small.with_name("tiny"))
    (fault,) = lineage_faults(small.with_name("tiny"))
    assert "calls itself net/small" in fault


def test_another_parent_than_the_one_it_was_made_from(small: Path) -> None:
    publish(small.parents[1], "baseline", b"another", Lineage(data_sha256="d"))
    (fault,) = lineage_faults(small)
    assert "derived from another 'baseline'" in fault


def test_a_parent_that_is_gone(small: Path) -> None:
    (small.parent / "baseline").rename(small.parents[1] / "elsewhere")
    (fault,) = lineage_faults(small)
    assert "which is not in" in fault
    (small.parent / "baseline").mkdir()
    (small.parent / "baseline" / "manifest.json").write_text("{")
    assert any("is not a manifest" in fault for fault in lineage_faults(small))


def test_a_parent_outside_the_model_is_not_looked_for(tmp_path: Path) -> None:
    lineage = Lineage(parent="../../etc", parent_sha256="p", recipe="name: small", data_sha256="d")
    (fault,) = lineage_faults(publish(tmp_path, "small", SMALL, lineage))
    assert "'../../etc', which names no variant" in fault


def test_a_derived_variant_says_how_it_was_made(small: Path) -> None:
    faults = lineage_faults(publish(small.parents[1], "odd", SMALL, Lineage(parent="baseline")))
    assert [fault.split("does not say its ")[1] for fault in faults] == [
        "recipe.",
        "data_sha256.",
        "parent_sha256.",
    ]


def test_no_manifest_and_a_damaged_one(tmp_path: Path) -> None:
    assert "has no manifest.json" in lineage_faults(tmp_path)[0]
    (tmp_path / "manifest.json").write_text("[]")
    assert "is not a manifest" in lineage_faults(tmp_path)[0]
