"""Models that are not one batch of floats in and one row of scores out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.options import Options
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.variant import read_golden

pytestmark = pytest.mark.usefixtures("no_memory_processes")

# Tiny networks are all overhead: what is tested here is not whether int8 pays off on them.
LENIENT = Limits(max_drop=1.0, max_slowdown=1000.0, max_bytes_ratio=1000.0)
QUICK = EvaluationSettings.quick()
FAST = Options(seconds_per_point=0.02, limits=LENIENT, evaluation=QUICK, explain=False)


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
    report = compress(
        models.choosing(), data=rows(x=(8,)), repository=tmp_path / "r", name="net", options=FAST
    )
    assert report.variant("fp16").verdict.published
    assert "main graph has no Conv, Gemm or MatMul" in report.variant("int8").verdict.reason


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
