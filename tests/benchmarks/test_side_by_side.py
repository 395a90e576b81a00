"""Other tools run in environments of their own, and what goes wrong there becomes a line of the table."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.data import DataSet, load_data

pytestmark = [pytest.mark.torch, pytest.mark.source]

COPIES = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[3])"
FAILS = "import sys; print('loading'); print('ValueError: no such operator', file=sys.stderr); sys.exit(1)"
SILENT = "pass"


@pytest.fixture
def side(script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script, with a folder of workers that each test fills."""
    module = script("side_by_side")
    (tmp_path / "peers").mkdir()
    monkeypatch.setattr(module, "_HERE", tmp_path)
    home = tmp_path / "environments" / "one"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    (home / "installed").touch()
    return module


@pytest.fixture
def case(side: ModuleType, tmp_path: Path) -> object:
    """Return a case of one operator, whose shapes an exporter noted down wrongly."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        value_info=[helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "case.onnx"
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    data = DataSet({"x": np.ones((8, 2), np.float32)}, np.arange(8) % 2)
    return side.Case("case", path, data, data, "static")


def made(side: ModuleType, case: object, folder: Path, worker: str) -> object:
    (folder / "peers" / "one_worker.py").write_text(worker)
    return side.by_tool(side.Tool("One", "one_worker.py", ()), case, folder, folder / "environments")


def test_a_tool_gets_the_model_without_noted_shapes_and_the_data_without_labels(side, case, tmp_path) -> None:
    found = made(side, case, tmp_path, COPIES)
    assert found.reason == ""
    assert not onnx.load(found.path).graph.value_info
    given = load_data(tmp_path / "in.npz")
    assert given.labels is None
    assert list(given.inputs) == ["x"]


def test_a_tool_that_fails_is_told_by_its_own_error(side, case, tmp_path) -> None:
    found = made(side, case, tmp_path, FAILS)
    assert found.path is None
    assert found.reason == "ValueError: no such operator"


def test_a_tool_that_ends_well_and_writes_nothing_failed_too(side, case, tmp_path) -> None:
    found = made(side, case, tmp_path, SILENT)
    assert (found.path, found.reason) == (None, "exit code 0")


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("a\nImportError: b\nc", "ImportError: b"),
        ("a\n\nb\n", "b"),
        ("", "exit code 3"),
        ("x" * 200, f"{'x' * 160}..."),
    ],
)
def test_the_reason_is_one_line(side: ModuleType, output: str, told: str) -> None:
    assert side.reason_of(output, 3) == told


def test_a_failure_is_a_line_of_the_table(side, case, tmp_path, capsys) -> None:
    bench = side.Bench(case.model, case.evaluation, tmp_path, side.BenchSettings(seconds_per_point=0.01))
    rows = [side.Row("fp32", 0.0, bench.measure_baseline()), side.Row("One", 2.0, failure="failed: because")]
    side.print_table([("case", rows)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "case"
    assert "1.00x" in printed[3]
    assert printed[4].split() == ["One", "failed:", "because", "2"]
