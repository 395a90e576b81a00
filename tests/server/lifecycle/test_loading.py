"""Loading one variant, with real sessions."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.protos.errors import FlyweightError, ManifestError, RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import MANIFEST_FILE
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.desired import VariantSource, desire
from flyweight.server.lifecycle.loading import load_variant
from flyweight.server.repository.scan import scan_repository
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.seam import SessionSettings

X = np.ones((3, 4), np.float32)


def find(root: Path, variant: str, model: str = "tiny") -> VariantSource:
    return desire(scan_repository(root)).models[model].wanted[variant]


def test_a_published_variant_is_loaded_and_answers(repository: Path) -> None:
    loaded = load_variant(find(repository, "int8"), InlineFactory(cores=1))
    assert (loaded.model, loaded.name) == ("tiny", "int8")
    assert loaded.manifest is not None
    assert loaded.signature.max_batch_rows == loaded.config.max_batch_size == 1024
    assert loaded.signature.check({"x": X}) == 3
    with loaded.lease() as runtime:
        np.testing.assert_array_equal(runtime.run({"x": X}).outputs["y"], 3 * X)
    files = (repository / "tiny" / "int8").iterdir()
    assert loaded.memory.file_bytes == sum(path.stat().st_size for path in files)


def test_a_plain_version_is_loaded(plain_repository: Path) -> None:
    loaded = load_variant(find(plain_repository, "2", "plain"), InlineFactory(cores=1))
    assert loaded.manifest is None
    np.testing.assert_array_equal(loaded.runtime.run({"x": X}).outputs["y"], 2 * X)


def test_the_manifests_session_settings_are_used_unless_the_operator_says_otherwise(
    repository_root: Path, publish: Any
) -> None:
    def edit(manifest: VariantManifest) -> None:
        manifest.session.intra_op_threads = 2
        manifest.session.config_entries["session.disable_prepacking"] = "1"

    publish("baseline", 1.0, edit=edit)
    factory = FakeFactory()
    load_variant(find(repository_root, "baseline"), factory)
    load_variant(find(repository_root, "baseline"), factory, intra_op_threads=4)
    entries = {"session.disable_prepacking": "1"}
    assert factory.settings == [SessionSettings(2, entries), SessionSettings(4, entries)]


def damage_model(root: Path) -> None:
    path = root / "tiny" / "int8" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_model(root: Path) -> None:
    path = root / "tiny" / "int8" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-7])


def remove_model(root: Path) -> None:
    (root / "tiny" / "int8" / "model.onnx").unlink()


def damage_manifest(root: Path) -> None:
    (root / "tiny" / "int8" / MANIFEST_FILE).write_text("{")


def write_config(text: str) -> Any:
    return lambda root: (root / "tiny" / "config.pbtxt").write_text(text)


@pytest.mark.parametrize(
    ("harm", "error", "sentence"),
    [
        (damage_model, ManifestError, "has SHA-256"),
        (cut_model, ManifestError, "bytes where the manifest says"),
        (remove_model, ManifestError, "is not there"),
        (damage_manifest, ManifestError, "is not a manifest"),
        (write_config("nonsense"), LoadFailed, "is not a model configuration"),
        (write_config("batch_input [{}]"), LoadFailed, "asks for batch_input"),
        (write_config("instance_group [{kind: KIND_GPU}]"), LoadFailed, "KIND_GPU"),
        (write_config('input [{name: "z"}]'), LoadFailed, "'z'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_leaves_nothing(
    repository: Path, harm: Any, error: type[FlyweightError], sentence: str
) -> None:
    harm(repository)
    factory = FakeFactory()
    with pytest.raises(error, match=sentence):
        load_variant(find(repository, "int8"), factory)
    assert all(runtime.closed.is_set() for runtime in factory.made)


def test_a_variant_that_answers_otherwise_than_when_it_was_published_is_closed_again(
    repository_root: Path, publish: Any
) -> None:
    publish("int8", 3.0, golden_scale=3.5)
    factory = FakeFactory(lambda _: FakeRuntime(scale=3.0))
    with pytest.raises(LoadFailed, match="differs from the golden sample"):
        load_variant(find(repository_root, "int8"), factory)
    assert factory.made[0].closed.is_set()


def test_a_model_that_the_manifest_does_not_list_is_not_loaded(repository: Path, tiny_model: Any) -> None:
    """A digest that nobody checks protects nothing."""
    (repository / "tiny" / "config.pbtxt").write_text('default_model_filename: "other.onnx"')
    tiny_model(repository / "tiny" / "int8" / "other.onnx")
    with pytest.raises(LoadFailed, match=r"other\.onnx is not listed in the manifest"):
        load_variant(find(repository, "int8"), FakeFactory())


def test_a_folder_that_changes_while_it_is_loaded_is_not_published(
    plain_repository: Path, tiny_model: Any
) -> None:
    source = find(plain_repository, "2", "plain")
    fakes = list[FakeRuntime]()

    def make(_: Path) -> FakeRuntime:
        tiny_model(source.folder / "model.onnx", 7.0, ("n", 44))
        fakes.append(FakeRuntime())
        return fakes[-1]

    with pytest.raises(RepositoryError, match="changed while it was loaded"):
        load_variant(source, FakeFactory(make))
    assert fakes[0].closed.is_set()


def test_a_folder_that_vanishes_while_it_is_loaded_is_named(plain_repository: Path) -> None:
    source = find(plain_repository, "2", "plain")

    def make(_: Path) -> FakeRuntime:
        shutil.rmtree(source.folder)
        return FakeRuntime()

    with pytest.raises(RepositoryError, match="vanished while it was loaded"):
        load_variant(source, FakeFactory(make))
