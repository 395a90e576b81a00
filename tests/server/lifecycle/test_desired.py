"""What a repository asks for, by its folders, its config.pbtxt and its traffic.yaml."""

from pathlib import Path
from types import MappingProxyType

import pytest

from flyweight.protos.variant import MANIFEST_FILE
from flyweight.server.lifecycle.desired import DesiredModel, desire
from flyweight.server.repository.fingerprint import FileStamp, Fingerprint
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS
from flyweight.server.repository.snapshot import Fault, ModelSnapshot, Snapshot, VariantSnapshot

ROOT = Path("/repository/m")


def folder(name: str, *files: str) -> VariantSnapshot:
    return VariantSnapshot(name, ROOT / name, Fingerprint(tuple(FileStamp(file, 1, 0, 0) for file in files)))


def snapshot(folders: str, config: str | None = None, traffic: str | None = None) -> Snapshot:
    """Return a model from words: "1" is a plain folder, "1+" has a manifest, "1-" has no model."""
    variants = []
    for word in folders.split():
        if word.endswith("+"):
            variants.append(folder(word[:-1], MANIFEST_FILE, "model.onnx"))
        elif word.endswith("-"):
            variants.append(folder(word[:-1], "notes.txt"))
        else:
            variants.append(folder(word, "model.onnx"))
    by_name = MappingProxyType({each.name: each for each in variants})
    return Snapshot(MappingProxyType({"m": ModelSnapshot("m", ROOT, by_name, config, traffic)}))


def desired(folders: str, config: str | None = None, traffic: str | None = None) -> DesiredModel:
    return desire(snapshot(folders, config, traffic)).models["m"]


@pytest.mark.parametrize(
    ("folders", "config", "traffic", "wanted", "kept", "dropped"),
    [
        ("baseline+ int8+", None, None, "baseline int8", "", ""),
        ("baseline int8", None, None, "baseline int8", "", ""),
        ("1 2 10", None, None, "10", "", "1 2"),
        ("1+ 2+", None, None, "1 2", "", ""),
        ("1 2 int8+", None, None, "2 int8", "", "1"),
        ("1 2 3", "version_policy {latest {num_versions: 2}}", None, "2 3", "", "1"),
        ("1 2 3", "version_policy {all {}}", None, "1 2 3", "", ""),
        ("1 2 3", "version_policy {specific {versions: [1, 3, 9]}}", None, "1 3", "", "2"),
        ("1+ 2+ int8", "version_policy {specific {versions: [1]}}", None, "1 int8", "", "2"),
        ("1 2 3", None, "split: {1: 50, 3: 50}", "1 3", "", "2"),
        ("1 2 3", None, "baseline: '1'", "1 3", "", "2"),
        ("1 2 3", "version_policy {specific {versions: [3]}}", "split: {1: 50, 3: 50}", "3", "", "1 2"),
        ("1 2 3", None, "split: {1: 50, 9: 50}", "1 3", "2", ""),
        ("1 2 3", None, "split: [", "3", "1 2", ""),
        ("1 2 3", "nonsense", None, "3", "1 2", ""),
        ("1 assets-", None, None, "1", "", ""),
    ],
)
def test_what_is_wanted(
    folders: str, config: str | None, traffic: str | None, wanted: str, kept: str, dropped: str
) -> None:
    model = desired(folders, config, traffic)
    assert sorted(model.wanted) == sorted(wanted.split())
    assert model.kept == frozenset(kept.split())
    assert model.dropped == frozenset(dropped.split())
    assert bool(model.traffic_error) == (traffic == "split: [")


def test_a_version_that_is_asked_for_and_not_there_is_a_fault() -> None:
    (fault,) = desired("1 2", "version_policy {specific {versions: [1, 9]}}").faults
    assert fault == Fault("m", "", "config.pbtxt asks for version 9 of m, which is not there.")


ENSEMBLE = 'platform: "ensemble" ensemble_scheduling {step [{model_name: "b"}, {model_name: "a"}]}'


def test_an_empty_version_folder_is_all_an_ensemble_needs() -> None:
    model = desired("1- 2- notes-", ENSEMBLE)
    (source,) = model.wanted.values()
    assert (source.variant, source.model_file, source.steps) == ("2", "", ("a", "b"))
    assert source.is_ensemble
    assert not desired("1").wanted["1"].is_ensemble
    assert model.faults == ()


def test_an_ensemble_without_a_version_folder_is_a_fault() -> None:
    (fault,) = desired("", ENSEMBLE).faults
    assert fault.reason == f"{ROOT} holds no version; make an empty folder 1, which is all an ensemble needs."


def test_what_an_admitted_ensemble_runs_follows_it_where_it_may() -> None:
    names = ("a", "b", "c", "inner", "outer")
    configs = {"outer": ENSEMBLE.replace('"b"', '"inner"'), "inner": ENSEMBLE}
    models = {
        name: ModelSnapshot(name, ROOT, MappingProxyType({"1": folder("1", "model.onnx")}), configs.get(name))
        for name in names
    }
    whole = Snapshot(MappingProxyType(models))

    def admitted(*may_follow: str) -> list[str]:
        return sorted(desire(whole, lambda name: name == "outer", lambda name: name in may_follow).models)

    assert admitted() == ["outer"]
    assert admitted(*names) == ["a", "b", "inner", "outer"]
    assert admitted("a", "b") == ["a", "outer"]


def test_a_version_folder_without_a_model_is_a_fault() -> None:
    (fault,) = desired("1 2-").faults
    assert fault == Fault("m", "2", f"{ROOT}/2 holds no model.onnx; copy the model there.")


def test_a_configured_model_without_variants_is_a_fault() -> None:
    (fault,) = desired("", config="max_batch_size: 1").faults
    assert fault.reason == f"{ROOT} holds no variant; publish one, or remove it."


def test_a_folder_that_is_no_model_is_left_alone() -> None:
    assert not desire(snapshot("notes-")).models


def test_a_configured_file_name_is_followed_where_it_is() -> None:
    config = 'default_model_filename: "net.onnx"'
    variants = {"1": folder("1", "net.onnx"), "int8": folder("int8", MANIFEST_FILE, "model.onnx")}
    model = ModelSnapshot("m", ROOT, MappingProxyType(variants), config)
    wanted = desire(Snapshot(MappingProxyType({"m": model}))).models["m"].wanted
    assert {name: each.model_file for name, each in wanted.items()} == {"1": "net.onnx", "int8": "model.onnx"}


def test_a_change_of_the_configuration_is_a_change_of_every_variant() -> None:
    before, after = desired("1"), desired("1", config="max_batch_size: 1")
    assert before.wanted["1"] != after.wanted["1"]


def test_models_that_are_not_admitted_are_left_out() -> None:
    assert not desire(snapshot("1"), lambda name: name != "m").models


def test_faults_of_a_model_go_with_it_and_others_stay() -> None:
    faults = (Fault("m", "-v", "bad name"), Fault("my model", "", "bad name"))
    one = snapshot("1")
    both = desire(Snapshot(one.models, faults))
    assert both.models["m"].faults == faults[:1]
    assert both.faults == faults[1:]


def test_a_text_that_is_too_long_is_refused_and_not_cut() -> None:
    """Half of a traffic.yaml could be another valid plan, and reading megabytes of YAML takes seconds."""
    long = "split: {int8: 100}\n" + "#" * LARGEST_TEXT_CHARACTERS
    model = desired("baseline+ int8+", traffic=long)
    assert model.traffic is None
    assert "/repository/m/traffic.yaml is longer than 131072 characters" in model.traffic_error
