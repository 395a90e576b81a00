"""The whole way from a file to a repository."""

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from onnx import numpy_helper

from flyweight.compressor.compression import compress
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import CompressorError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph, save_graph
from flyweight.compressor.options import Options
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8
from flyweight.compressor.published import describe_published
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.variant import read_golden, read_manifest, verify_digests
from flyweight.protos.variant.golden import largest_relative_error

pytestmark = pytest.mark.usefixtures("no_memory_processes")

# Tiny networks are all overhead: what is tested here is not whether int8 pays off on them.
LENIENT = Limits(max_drop=1.0, max_slowdown=1000.0, max_bytes_ratio=1000.0)
QUICK = EvaluationSettings.quick()
FAST = Options(seconds_per_point=0.02, limits=LENIENT, evaluation=QUICK, explain=False)


@dataclass(frozen=True, slots=True)
class Tamper(Pass):
    """A pass that breaks the last weight in a way the test chooses."""

    name: ClassVar[str] = "tamper"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    how: str = "nan"

    def apply(self, model: Model, context) -> PassResult:
        graph = load_graph(model.onnx_path())
        tensor = [tensor for tensor in graph.graph.initializer if len(tensor.dims) == 2][-1]
        weight = numpy_helper.to_array(tensor).copy()
        match self.how:
            case "nan":
                weight[...] = np.nan
            case "shuffle":
                weight = np.roll(weight, 1, axis=-1)
            case "bug":
                raise KeyError("a bug in a pass")
            case "rename":
                graph.graph.output[0].name = "other"
                graph.graph.node[-1].output[0] = "other"
            case "unloadable":
                graph.graph.node[-1].op_type = "NoSuchOperator"
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
        return PassResult(Model(path=save_graph(graph, context.new_path("tamper"))), changed=True)


def outcomes(
    path: Path, data: DataSet, repository: Path, recipes: Mapping[str, Pass] | None = None
) -> dict[str, tuple[bool, str]]:
    report = compress(path, recipes, data=data, repository=repository, name="net", options=FAST)
    return {v.name: (v.verdict.published, v.verdict.reason) for v in report.variants}


def test_a_network_for_digits_keeps_its_accuracy_in_every_variant(digits, tmp_path: Path) -> None:
    path, data = digits
    report = compress(path, data=data, repository=tmp_path, name="digits", options=FAST)
    *made, cut, mixed = report.variants
    assert [variant.name for variant in made] == ["baseline", "int8", "int8-dynamic", "fp16"]
    assert cut.name == "cut-int8"
    assert cut.evaluation is not None
    assert cut.evaluation.macs < 64 * 128 + 128 * 64 + 64 * 10
    assert mixed.verdict.reason == "Not tried: static int8 keeps the quality."
    for variant in made:
        assert variant.verdict.published, variant.verdict.reason
        assert variant.evaluation is not None
        quality = variant.evaluation.quality
        assert quality.metric == "accuracy"
        assert quality.value > 0.85
        assert abs(quality.delta) <= 0.01
        assert quality.samples == report.samples == 450
        assert variant.evaluation.parameters == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
        assert variant.evaluation.macs == 64 * 128 + 128 * 64 + 64 * 10
        assert [point.batch for point in variant.evaluation.latency] == [1, 8]
    assert report.variant("fp16").evaluation.file_bytes < 0.55 * report.baseline.evaluation.file_bytes


def test_a_published_variant_is_whole_and_repeats_its_golden_answers(digits, tmp_path: Path) -> None:
    path, data = digits
    report = compress(
        path, {"int8": StaticInt8()}, data=data, repository=tmp_path, name="digits", options=FAST
    )
    folder = report.variant("int8").path
    assert folder == tmp_path / "digits" / "int8"
    manifest = read_manifest(folder)
    assert manifest is not None
    verify_digests(folder, manifest)
    assert {file.path for file in manifest.files} == {"model.onnx", "golden.npz"}
    golden = read_golden(folder / manifest.golden.file)
    settings = SessionSettings(manifest.session.intra_op_threads, dict(manifest.session.config_entries))
    actual = Session(folder / "model.onnx", settings).run(golden.inputs)
    assert largest_relative_error(golden.outputs["scores"], actual["scores"]) == 0
    assert golden.inputs["x"].shape == (4, 64)


def test_a_manifest_tells_where_a_variant_comes_from_and_how_good_it_is(digits, tmp_path: Path) -> None:
    path, data = digits
    compress(path, {"int8": StaticInt8()}, data=data, repository=tmp_path, name="digits", options=FAST)
    base, made = (read_manifest(tmp_path / "digits" / name) for name in ("baseline", "int8"))
    assert base is not None
    assert made is not None
    assert (base.lineage.parent, made.lineage.parent) == ("", "baseline")
    (model_file,) = [file for file in base.files if file.path == "model.onnx"]
    assert made.lineage.parent_sha256 == model_file.sha256
    assert "static-int8" in made.lineage.recipe
    assert made.lineage.data_sha256 == data.digest
    assert "onnxruntime" in made.lineage.tools
    assert made.kind == "static int8"
    assert [(t.name, t.datatype, list(t.shape)) for t in made.inputs] == [("x", "FP32", [-1, 64])]
    assert {point.batch for point in made.latencies} == {1, 8}
    assert made.quality.figures["agreement"] > 0.97
    assert made.footprint.file_bytes == (tmp_path / "digits" / "int8" / "model.onnx").stat().st_size
    assert made.environment.cpu
    assert made.golden.relative_tolerance > base.golden.relative_tolerance


def test_the_baseline_is_published_byte_for_byte(digits, tmp_path: Path) -> None:
    path, data = digits
    compress(path, {}, data=data, repository=tmp_path, name="digits", options=FAST)
    assert (tmp_path / "digits" / "baseline" / "model.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "values that are not finite"),
        ("bug", "The recipe failed on this model (KeyError"),
        ("rename", "It cannot stand in for the baseline: its outputs are other instead of scores"),
        ("unloadable", "onnxruntime cannot load"),
    ],
)
def test_a_broken_variant_is_never_published(how: str, words: str, digits, tmp_path: Path) -> None:
    found = outcomes(*digits, tmp_path, {"broken": Tamper(how), "fp16": Fp16Storage()})
    published, reason = found["broken"]
    assert not published
    assert words in reason
    assert not (tmp_path / "net" / "broken").exists()
    assert found["fp16"][0]


def test_a_variant_worse_than_asked_is_not_published_and_an_earlier_one_stays(digits, tmp_path: Path) -> None:
    path, data = digits
    compress(path, {"v": Fp16Storage()}, data=data, repository=tmp_path, name="net", options=FAST)
    before = (tmp_path / "net" / "v" / "model.onnx").read_bytes()
    strict = Options(seconds_per_point=0.02)
    report = compress(
        path, {"v": Tamper("shuffle")}, data=data, repository=tmp_path, name="net", options=strict
    )
    assert not report.variant("v").verdict.published
    assert "Accuracy is" in report.variant("v").verdict.reason
    assert "was left as it is" in report.variant("v").verdict.reason
    assert (tmp_path / "net" / "v" / "model.onnx").read_bytes() == before
    assert report.recommended == "baseline"


def test_limits_may_differ_by_variant(digits, tmp_path: Path) -> None:
    path, data = digits
    options = Options(
        seconds_per_point=0.02, limits=LENIENT, variant_limits={"b": Limits(max_bytes_ratio=0.1)}
    )
    report = compress(
        path,
        {"a": Fp16Storage(), "b": Fp16Storage()},
        data=data,
        repository=tmp_path,
        name="net",
        options=options,
    )
    assert report.variant("a").verdict.published
    assert "times as many where 0.1 is allowed" in report.variant("b").verdict.reason


def test_the_document_is_plain_json_with_every_variant(digits, tmp_path: Path) -> None:
    path, data = digits
    recipes = {"int8": StaticInt8(), "broken": Tamper("bug")}
    document = compress(path, recipes, data=data, repository=tmp_path, name="digits", options=FAST).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [variant["name"] for variant in document["variants"]] == ["baseline", "int8", "broken"]
    broken = document["variants"][2]
    assert broken["path"] is None
    assert broken["bytes"] is None
    assert broken["latency"] == {}
    assert set(broken) == set(document["variants"][1])
    assert document["data"] == {"samples": 450, "digest": data.digest, "quality_metric": "accuracy"}


def test_the_document_can_be_read_back_from_the_repository(digits, tmp_path: Path) -> None:
    path, data = digits
    written = compress(
        path, {"int8": StaticInt8()}, data=data, repository=tmp_path, name="digits", options=FAST
    ).document()
    read = describe_published(tmp_path, "digits")
    assert {key: read[key] for key in ("model", "baseline", "recommended", "environment", "data")} == {
        key: written[key] for key in ("model", "baseline", "recommended", "environment", "data")
    }
    for before, after in zip(written["variants"], read["variants"], strict=True):
        for key in ("name", "kind", "bytes", "parameters", "macs", "passes", "memory", "path"):
            assert after[key] == before[key]
        assert after["latency"] == before["latency"]
        assert after["quality"]["accuracy"] == before["quality"]["accuracy"]


def test_progress_ends_where_it_should(digits, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    options = Options(
        seconds_per_point=0.02, progress=lambda what, done, total: told.append((what, done, total))
    )
    compress(
        digits[0], {"int8": StaticInt8()}, data=digits[1], repository=tmp_path, name="digits", options=options
    )
    assert [entry for entry in told if entry[0] == "variants"] == [
        ("variants", 0, 2),
        ("variants", 1, 2),
        ("variants", 2, 2),
    ]
    assert all(0 <= done <= total for _, done, total in told)
    assert {"calibrating", "answering", "timing"} <= {what for what, _, _ in told}


def test_nothing_is_left_in_the_temporary_folder(digits, tmp_path: Path, monkeypatch) -> None:
    import tempfile

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    compress(
        digits[0],
        {"int8": StaticInt8()},
        data=digits[1],
        repository=tmp_path / "r",
        name="digits",
        options=FAST,
    )
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_there_is_no_time_for_is_told_as_not_tried(digits, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Context, "remaining_seconds", lambda _self: 0.0)
    report = compress(digits[0], data=digits[1], repository=tmp_path, name="net", options=FAST)
    assert report.baseline.verdict.published
    assert report.variants[1:]
    for variant in report.variants[1:]:
        assert variant.verdict.reason.startswith("Not tried: the time limit came first")
    assert report.recommended == "baseline"


def test_a_recipe_that_meets_a_full_disk_ends_the_run(digits, tmp_path: Path, monkeypatch) -> None:
    def full(_self: object, _model: Model, _context: object) -> PassResult:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Tamper, "apply", full)
    with pytest.raises(CompressorError, match=r"The work cannot go on .*TMPDIR"):
        compress(digits[0], {"v": Tamper()}, data=digits[1], repository=tmp_path, name="net", options=FAST)
    document = json.loads((tmp_path / "net" / ".flyweight" / "report.json").read_text())
    assert [variant["name"] for variant in document["variants"]] == ["baseline"]
