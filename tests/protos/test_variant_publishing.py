"""Publishing is all or nothing, and what was there before is not lost."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant, publishing, read_manifest, staging, verify_digests
from flyweight.protos.variant.exchange import exchange

Fill = Callable[[Path], None]

DAY_SECONDS = 24 * 3600


def model_of(content: bytes) -> Fill:
    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(content)

    return fill


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[True, False], ids=["in one step", "in two steps"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test on a file system that can swap two folders, and on one that cannot."""
    if not request.param:
        monkeypatch.setattr(publishing, "exchange", lambda first, second: False)


def test_a_published_variant_is_whole(tmp_path: Path, manifest: VariantManifest, fill: Fill) -> None:
    folder = publish_variant(tmp_path / "new" / "repository", manifest, fill)
    assert folder == tmp_path / "new" / "repository" / "digits" / "int8"
    assert names_in(folder) == ["data", "golden.npz", "manifest.json", "model.onnx"]
    assert names_in(folder.parent) == ["int8"]
    read = read_manifest(folder)
    assert read == manifest
    verify_digests(folder, manifest)


@pytest.mark.usefixtures("swap")
def test_a_replaced_variant_is_the_new_one_alone(variant: Path, manifest: VariantManifest) -> None:
    publish_variant(variant.parent.parent, manifest, model_of(b"newer"))
    assert names_in(variant) == ["manifest.json", "model.onnx"]
    assert names_in(variant.parent) == ["int8"]
    verify_digests(variant, manifest)


def test_a_variant_is_not_replaced_unless_that_is_allowed(variant: Path, manifest: VariantManifest) -> None:
    with pytest.raises(RepositoryError, match=r"digits/int8 exists; choose another name"):
        publish_variant(variant.parent.parent, manifest, model_of(b"newer"), replace=False)
    assert (variant / "model.onnx").read_bytes() == b"a model"


@pytest.mark.usefixtures("swap")
def test_a_failing_writer_leaves_what_was_there(variant: Path, manifest: VariantManifest) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish_variant(variant.parent.parent, manifest, fail)
    assert names_in(variant.parent) == ["int8"]
    assert (variant / "model.onnx").read_bytes() == b"a model"


def test_a_failing_second_step_is_taken_back(
    variant: Path, manifest: VariantManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "exchange", lambda first, second: False)
    rename = Path.rename

    def rename_all_but_the_staged(path: Path, target: Path) -> Path:
        if path.suffix == ".publishing":
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_all_but_the_staged)
    with pytest.raises(RepositoryError, match=r"int8 cannot be written \(Operation not permitted\)"):
        publish_variant(variant.parent.parent, manifest, model_of(b"newer"))
    assert names_in(variant.parent) == ["int8"]
    assert (variant / "model.onnx").read_bytes() == b"a model"


def test_a_full_disk_is_one_sentence(variant: Path, manifest: VariantManifest) -> None:
    def fill_the_disk(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        Path("/dev/full").write_bytes(b"the other half")

    with pytest.raises(
        RepositoryError, match=r"int8 cannot be written \(No space left on device.*free space"
    ):
        publish_variant(variant.parent.parent, manifest, fill_the_disk)
    assert (variant / "model.onnx").read_bytes() == b"a model"


def test_a_failed_rename_names_the_variant_and_not_the_hidden_folder(
    tmp_path: Path, manifest: VariantManifest, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise OSError(18, "Invalid cross-device link", str(path), None, str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(
        RepositoryError, match=r"int8 cannot be written \(Invalid cross-device link: \S*/digits/int8\)"
    ):
        publish_variant(tmp_path, manifest, fill)


def test_an_unwritable_repository_is_one_sentence(
    tmp_path: Path, manifest: VariantManifest, fill: Fill
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        RepositoryError, match=r"file/repository/digits/int8 cannot be written \(Not a directory"
    ):
        publish_variant(tmp_path / "file" / "repository", manifest, fill)


def test_a_variant_without_a_model_is_refused(tmp_path: Path, manifest: VariantManifest) -> None:
    with pytest.raises(RepositoryError, match=r"was given no model\.onnx"):
        publish_variant(tmp_path, manifest, lambda folder: None)
    assert names_in(tmp_path / "digits") == []


def test_a_link_is_refused(tmp_path: Path, manifest: VariantManifest) -> None:
    def link(folder: Path) -> None:
        (tmp_path / "elsewhere").touch()
        (folder / "model.onnx").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RepositoryError, match=r"would hold the link model\.onnx"):
        publish_variant(tmp_path, manifest, link)


@pytest.mark.parametrize("put", [Path.touch, lambda path: path.symlink_to(path.parent)], ids=["file", "link"])
def test_what_is_no_folder_is_not_replaced(
    tmp_path: Path, manifest: VariantManifest, fill: Fill, put: Callable[[Path], None]
) -> None:
    (tmp_path / "digits").mkdir()
    put(tmp_path / "digits" / "int8")
    with pytest.raises(RepositoryError, match="is not a folder, and is not replaced"):
        publish_variant(tmp_path, manifest, fill)


@pytest.mark.parametrize(("model", "variant"), [("../digits", "int8"), ("digits", ".int8"), ("", "int8")])
def test_names_are_checked_before_anything_is_written(
    tmp_path: Path, fill: Fill, model: str, variant: str
) -> None:
    with pytest.raises(RepositoryError, match="cannot name a"):
        publish_variant(tmp_path / "repository", VariantManifest(model=model, variant=variant), fill)
    assert names_in(tmp_path) == []


def test_a_reader_never_misses_a_variant_that_is_replaced(variant: Path, manifest: VariantManifest) -> None:
    other = variant.with_name("other")
    other.mkdir()
    if not exchange(other, variant) or not exchange(other, variant):
        pytest.skip("this file system cannot swap two folders")
    stop, reads, missed = threading.Event(), [0], [0]

    def read() -> None:
        while not stop.is_set():
            reads[0] += 1
            missed[0] += not (variant / "model.onnx").exists()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for generation in range(20):
            publish_variant(variant.parent.parent, manifest, model_of(b"%d" % generation))
    finally:
        stop.set()
        reader.join()
    assert reads[0] > 0
    assert missed[0] == 0


def test_two_writers_both_succeed_and_one_wins(variant: Path) -> None:
    def publish(content: bytes) -> None:
        manifest = VariantManifest(model="digits", variant="int8", kind=content.decode())
        publish_variant(variant.parent.parent, manifest, model_of(content))

    writers = [threading.Thread(target=publish, args=(content,)) for content in (b"first", b"second")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    manifest = read_manifest(variant)
    assert manifest is not None
    verify_digests(variant, manifest)
    assert (variant / "model.onnx").read_bytes() == manifest.kind.encode()
    assert names_in(variant.parent) == ["int8"]


def test_an_old_half_written_folder_is_removed_and_a_fresh_one_is_not(
    variant: Path, manifest: VariantManifest
) -> None:
    old, fresh = (staging.staging_folder(variant) for _ in range(2))
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "model.onnx").touch()
    for path in (old / "model.onnx", old):
        os.utime(path, (0, 0))
    # Copied with its old date into a folder that is being filled now.
    os.utime(fresh / "model.onnx", (0, 0))
    publish_variant(variant.parent.parent, manifest, model_of(b"newer"))
    assert names_in(variant.parent) == sorted([fresh.name, "int8"])


def test_a_folder_is_stale_after_a_day(variant: Path) -> None:
    folder = staging.staging_folder(variant)
    folder.mkdir()
    written = folder.stat().st_mtime
    staging.clean_up_after_others(variant.parent, now=written + DAY_SECONDS - 1)
    assert folder.exists()
    staging.clean_up_after_others(variant.parent, now=written + DAY_SECONDS + 1)
    assert not folder.exists()


def test_a_variant_left_aside_by_an_interrupted_writer_is_brought_back(variant: Path) -> None:
    aside = staging.aside_folder(staging.staging_folder(variant))
    variant.rename(aside)
    staging.clean_up_after_others(variant.parent)
    assert names_in(variant.parent) == ["int8"]
    assert (variant / "model.onnx").read_bytes() == b"a model"


def test_dotted_names_are_brought_back_too(tmp_path: Path) -> None:
    variant = tmp_path / "v1.2.final"
    variant.mkdir()
    variant.rename(staging.aside_folder(staging.staging_folder(variant)))
    staging.clean_up_after_others(tmp_path)
    assert names_in(tmp_path) == ["v1.2.final"]


def test_a_file_or_link_with_a_hidden_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".a.0.publishing").touch()
    (tmp_path / ".b.0.publishing").symlink_to(tmp_path)
    staging.clean_up_after_others(tmp_path, now=1e12)
    assert names_in(tmp_path) == [".a.0.publishing", ".b.0.publishing"]
