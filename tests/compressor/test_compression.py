"""The whole way from a file to a repository, for ordinary and for odd networks."""

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from flyweight.compressor.compression import compress
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import CompressorError, DataError, ModelError, RecipeError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph, save_graph
from flyweight.compressor.options import Options
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8
from flyweight.compressor.published import describe_published
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.errors import RepositoryError
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
    *made, mixed = report.variants
    assert [variant.name for variant in made] == ["baseline", "int8", "int8-dynamic", "fp16"]
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


def test_without_labels_agreement_decides(models, rows, tmp_path: Path) -> None:
    report = compress(
        models.mlp(),
        {"fp16": Fp16Storage()},
        data=rows(x=(16,)),
        repository=tmp_path / "r",
        name="net",
        options=FAST,
    )
    assert report.baseline.evaluation.quality.metric == "agreement"
    assert report.baseline.evaluation.quality.value == 1.0


def test_an_input_without_a_batch_axis_is_run_row_by_row(models, rows, tmp_path: Path) -> None:
    report = compress(
        models.scaled(), data=rows(x=(4,), factor=()), repository=tmp_path / "r", name="net", options=FAST
    )
    assert [point.batch for point in report.baseline.evaluation.latency] == [1]
    golden = read_golden(tmp_path / "r" / "net" / "baseline" / "golden.npz")
    assert golden.inputs["factor"].shape == ()
    assert all("nothing to" in v.verdict.reason for v in report.variants[1:4])
    assert report.variant("int8-mixed").verdict.reason.startswith("Not tried: static int8 could not be made")


def test_a_fixed_batch_is_measured_in_whole_groups(models, rows, tmp_path: Path) -> None:
    report = compress(
        models.mlp(batch=4),
        {"int8": StaticInt8()},
        data=rows(samples=30, x=(16,)),
        repository=tmp_path / "r",
        name="net",
        options=FAST,
    )
    assert [point.batch for point in report.baseline.evaluation.latency] == [4]
    assert report.samples == 28
    assert any("the last 2 of 30 samples were left out" in note for note in report.baseline.notes)
    assert report.variant("int8").verdict.published


def test_a_batch_axis_that_is_only_promised_is_found_out(models, rows, tmp_path: Path) -> None:
    """The file says n rows, and a Reshape inside has one row built in."""
    graph = onnx.load(models.mlp())
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 16]), "shape"))
    graph.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", "shape"], ["one"]))
    graph.graph.node[1].input[0] = "one"
    path = save_graph(graph, tmp_path / "promise.onnx")
    report = compress(
        path, {"int8": StaticInt8()}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST
    )
    assert any("run row by row" in note for note in report.baseline.notes)
    assert report.variant("int8").verdict.published


def test_branches_and_integer_outputs_are_no_obstacle(models, rows, tmp_path: Path) -> None:
    found = outcomes(models.choosing(), rows(x=(8,)), tmp_path / "r")
    assert found["fp16"][0]
    assert "main graph has no Conv, Gemm or MatMul" in found["int8"][1]


@pytest.mark.parametrize(
    ("element", "values"),
    [
        (TensorProto.INT64, np.arange(48).reshape(12, 4)),
        (TensorProto.BOOL, np.arange(48).reshape(12, 4) % 3 == 0),
        (TensorProto.UINT8, np.arange(48, dtype=np.uint8).reshape(12, 4)),
        (TensorProto.STRING, np.array([["a", "bc", "", "d"]] * 12)),
        (TensorProto.DOUBLE, np.linspace(0, 1, 48).reshape(12, 4)),
    ],
)
def test_any_type_of_tensor_can_be_a_baseline(
    element: int, values: np.ndarray, models, tmp_path: Path
) -> None:
    report = compress(
        models.identity(element, ["n", 4]),
        {},
        data=DataSet({"x": values}),
        repository=tmp_path / "r",
        name="net",
        options=FAST,
    )
    assert report.baseline.verdict.published
    assert report.recommended == "baseline"


def test_external_data_go_along(models, rows, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    (tmp_path / "w").mkdir()
    onnx.save_model(
        onnx.load(models.mlp()), path, save_as_external_data=True, location="w/data.bin", size_threshold=0
    )
    report = compress(
        path, {"int8": StaticInt8()}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST
    )
    folder = tmp_path / "r" / "net" / "baseline"
    assert (folder / "w" / "data.bin").is_file()
    Session(folder / "model.onnx", SessionSettings())
    assert report.variant("int8").verdict.published, report.variant("int8").verdict.reason


def test_answers_left_to_chance_get_no_golden_samples(tmp_path: Path, rows) -> None:
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("RandomNormalLike", ["x"], ["noise"]),
            onnx.helper.make_node("Add", ["x", "noise"], ["y"]),
        ],
        "noisy",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save_model(model, tmp_path / "noisy.onnx")
    report = compress(
        tmp_path / "noisy.onnx", {}, data=rows(x=(4,)), repository=tmp_path / "r", name="net", options=FAST
    )
    assert any("answers differently every time" in note for note in report.baseline.notes)
    assert not (tmp_path / "r" / "net" / "baseline" / "golden.npz").exists()


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


def test_a_model_that_is_missing_leaves_the_repository_alone(rows, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        compress(tmp_path / "nowhere.onnx", data=rows(x=(4,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def test_data_that_do_not_fit_are_refused_before_anything_is_written(models, rows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'x' is \[samples, 3\]"):
        compress(models.mlp(), data=rows(x=(3,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def test_another_model_of_this_name_is_not_replaced(models, rows, tmp_path: Path) -> None:
    compress(models.mlp(), {}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)
    with pytest.raises(RepositoryError, match="holds another model, whose inputs are x"):
        compress(
            models.convnet(),
            {},
            data=rows(image=(3, 16, 16)),
            repository=tmp_path / "r",
            name="net",
            options=FAST,
        )


def test_a_repository_that_is_a_file_is_refused(models, rows, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("not a folder")
    with pytest.raises(RepositoryError, match="cannot be written"):
        compress(models.mlp(), {}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)


@pytest.mark.parametrize("name", ["baseline", "a/b", ".hidden", ""])
def test_a_recipe_may_not_take_just_any_name(name: str, models, rows, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        compress(
            models.mlp(),
            {name: Fp16Storage()},
            data=rows(x=(16,)),
            repository=tmp_path / "r",
            name="net",
            options=FAST,
        )


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


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.arange(64) % 2 + 9, FAST, "Label 10 is no class"),
        (np.full(64, 3), FAST, "All 64 labels are 3: a model that always answers this would look perfect"),
        (np.arange(63), FAST, "different numbers of samples"),
        (np.full((64, 10), 1e308), FAST, "R2 cannot be computed"),
        (None, Options(output="nope"), "no output 'nope'; its outputs are scores"),
        (None, Options(training=DataSet({"z": np.zeros((9, 16))})), "The training data do not fit the model"),
    ],
)
def test_bad_input_leaves_no_repository_behind(labels, options: Options, words: str, models, rows, tmp_path):
    data = dict(rows(x=(16,)).inputs)
    if labels is not None:
        data["label"] = labels
    with pytest.raises(DataError, match=words):
        compress(models.mlp(), data=data, repository=tmp_path / "r" / "deeper", name="net", options=options)
    assert not (tmp_path / "r").exists()


def test_weights_in_double_precision_are_the_reason_given(rows, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((16, 8)), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "double",
        [onnx.helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 16])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 8])],
        [weight],
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save_model(model, tmp_path / "double.onnx")
    data = DataSet({"x": rows(x=(16,)).inputs["x"].astype(np.float64)})
    found = outcomes(tmp_path / "double.onnx", data, tmp_path / "r")
    assert found["int8"][1] == found["int8-dynamic"][1]
    assert "weights are float64; give the model in fp32" in found["int8"][1]


@pytest.mark.parametrize(
    "given",
    [
        {"seed": -1},
        {"threads": 0},
        {"threads": 100_000},
        {"seconds_per_point": float("nan")},
        {"seconds_per_point": float("inf")},
        {"calibration_samples": 0},
    ],
)
def test_options_without_a_meaning_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="is from"):
        Options(**given)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, "7 samples and 8 are the fewest that say anything"),
        ("size<=50%", "7 samples and 8 are the fewest that say anything"),
    ],
)
def test_fewer_than_eight_samples_say_nothing(plan, words: str, models, rows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        compress(models.mlp(), plan, data=rows(samples=7, x=(16,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not-a-number"), (np.inf, "infinite values")])
def test_broken_weights_are_refused_by_name(value: float, words: str, models, rows, tmp_path: Path) -> None:
    graph = onnx.load(models.mlp())
    weight = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    weight[3, 4] = value
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    path = save_graph(graph, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=f"'w1' holds {words}"):
        compress(path, data=rows(x=(16,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def one_node(path: Path, operator: str, width: int, *constants: onnx.TensorProto) -> Path:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", *(constant.name for constant in constants)], ["y"])],
        "one",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        constants,
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return save_graph(model, path)


def test_a_model_that_answers_with_not_a_number_is_refused(rows, tmp_path: Path) -> None:
    path = one_node(tmp_path / "sqrt.onnx", "Sqrt", 4)
    with pytest.raises(ModelError, match=r"answers with not-a-number \(\d+ of 128 values of its output 'y'"):
        compress(path, {}, data=rows(x=(4,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_a_model_that_fails_is_refused(rows, tmp_path: Path) -> None:
    path = one_node(
        tmp_path / "fails.onnx", "Reshape", 3, numpy_helper.from_array(np.array([-1, 3]), "shape")
    )
    with pytest.raises(ModelError, match="cannot run on this input"):
        compress(path, data=rows(x=(4,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_a_place_that_cannot_be_published_to_is_refused_before_a_search(models, rows, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("not a folder")
    with pytest.raises(RepositoryError, match="cannot be written"):
        compress(models.mlp(), "size<=50%", data=rows(x=(16,)), repository=tmp_path / "r", name="net")


def test_variants_of_another_baseline_are_told_until_they_are_made_again(
    models, rows, tmp_path: Path
) -> None:
    data, place = rows(x=(16,)), {"repository": tmp_path / "r", "name": "net", "options": FAST}
    first = models.mlp()
    compress(first, {"a": Fp16Storage(), "b": Fp16Storage()}, data=data, **place)
    again = compress(first, {"a": Fp16Storage()}, data=data, **place)
    assert not any("another baseline" in note for note in again.baseline.notes)
    second = compress(models.mlp(name="retrained"), {"a": Fp16Storage()}, data=data, **place)
    (told,) = [note for note in second.baseline.notes if "another baseline" in note]
    assert told.startswith(f"b in {tmp_path / 'r' / 'net'} was made by an earlier run")
    assert "remove it, or compress again" in told


def test_a_variant_that_replaces_one_of_another_recipe_says_so(models, rows, tmp_path: Path) -> None:
    data, place = rows(x=(16,)), {"repository": tmp_path / "r", "name": "net", "options": FAST}
    path = models.mlp()
    for recipe, replaced in ((Fp16Storage(), False), (Fp16Storage(), False), (StaticInt8(), True)):
        report = compress(path, {"small": recipe}, data=data, **place)
        assert report.variant("small").verdict.published
        found = any("small replaced an earlier variant" in note for note in report.baseline.notes)
        assert found == replaced


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


@pytest.mark.torch
@pytest.mark.parametrize(("value", "words"), [(float("nan"), "not-a-number"), (float("inf"), "infinite")])
def test_broken_weights_of_a_module_are_refused_by_name(
    value: float, words: str, rows, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.ReLU())
    with torch.no_grad():
        module[0].weight[1, 2] = value
    with pytest.raises(ModelError, match=f"weight '0.weight' holds {words}"):
        compress(module, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_a_report_recommends_no_variant_of_another_baseline(models, rows, tmp_path: Path) -> None:
    """Publishing another model under the same name leaves variants that were measured against the first."""
    data = rows(x=(16,))
    compress(models.mlp(), {"half": Fp16Storage()}, data=data, repository=tmp_path, name="net", options=FAST)
    assert describe_published(tmp_path, "net")["recommended"] == "half"
    other = models.mlp(name="other")
    compress(other, {}, data=data, repository=tmp_path, name="net", options=FAST)
    assert describe_published(tmp_path, "net")["recommended"] == "baseline"
