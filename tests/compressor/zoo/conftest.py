"""Strange graphs, each with data, and an eye on what is published that shares no code with the compressor."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor import CompressionReport, DataSet, Options, compress
from flyweight.compressor.evaluate.settings import EvaluationSettings

SAMPLES = 16
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass
class Graph:
    """A graph under construction; it is saved by `save`."""

    inputs: dict[str, tuple[int, list[Any] | None]]
    outputs: dict[str, tuple[int, list[Any] | None]]
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: list[onnx.TensorProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))

    def weight(self, name: str, *shape: int, dtype: Any = np.float32) -> str:
        # Alike for alike names and shapes, so that every graph is the same in every run.
        random = np.random.default_rng([len(name), *shape])
        values = random.standard_normal(shape) / np.sqrt(max(1, shape[0] if shape else 1))
        return self.constant(name, values.astype(dtype))

    def constant(self, name: str, value: Any) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def graph(self) -> onnx.GraphProto:
        values = [
            [helper.make_tensor_value_info(name, *described) for name, described in side.items()]
            for side in (self.inputs, self.outputs)
        ]
        return helper.make_graph(self.nodes, "strange", *values, self.stored)

    def model(self) -> onnx.ModelProto:
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in self.domains)]
        return helper.make_model(self.graph(), ir_version=8, opset_imports=imports, functions=self.functions)

    def save(self, path: Path, **external: Any) -> Path:
        onnx.save_model(self.model(), path, **external)
        return path


@pytest.fixture
def strange() -> type[Graph]:
    """Begin a graph, from its inputs and outputs."""
    return Graph


@pytest.fixture
def normal() -> Callable[..., np.ndarray]:
    """Make normal numbers for an input, a sample at each index of the first axis."""

    def make(*shape: int) -> np.ndarray:
        return np.random.default_rng(2).standard_normal((SAMPLES, *shape)).astype(np.float32)

    return make


@pytest.fixture
def squeeze(
    tmp_path: Path, no_memory_processes: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CompressionReport]:
    """Compress with the defaults, quickly, and look at everything that was published."""
    monkeypatch.setattr("flyweight.compressor.evaluate.latency._TURN_SECONDS", 1e-4)
    # The kernel takes its time to count the pages of a process that has loaded everything.
    monkeypatch.setattr("flyweight.compressor.evaluate.examination.private_bytes", lambda: 0)

    def run(path: Path, arrays: dict[str, np.ndarray], labels: np.ndarray | None = None) -> CompressionReport:
        data = DataSet(arrays, labels)
        options = Options(
            seconds_per_point=0.01,
            time_limit_seconds=60,
            evaluation=EvaluationSettings(examination_seconds=0.1),
        )
        report = compress(path, data=data, repository=tmp_path / "repository", name="m", options=options)
        for variant in report.variants:
            assert variant.verdict.reason.endswith(".")
            assert "\n" not in variant.verdict.reason
            if variant.verdict.published:
                assert variant.path is not None
                assert_harmless(path, variant.path / "model.onnx", data)
        return report

    return run


def assert_harmless(original: Path, published: Path, data: DataSet) -> None:
    """Compare a published file with the original: tensors, finite answers, how alike they are."""
    if not published.exists():
        return
    before, after = (ort.InferenceSession(str(path), quiet()) for path in (original, published))
    assert [(t.name, t.type) for t in before.get_inputs()] == [(t.name, t.type) for t in after.get_inputs()]
    assert [(t.name, t.type) for t in before.get_outputs()] == [(t.name, t.type) for t in after.get_outputs()]
    shapes = {value.name: value.shape for value in before.get_inputs()}
    for row in range(4):
        feed = {
            name: array[row : row + rows_of(shapes[name])] if array.ndim == len(shapes[name]) else array[row]
            for name, array in data.inputs.items()
        }
        feed = {name: v.astype(object) if v.dtype.kind == "U" else v for name, v in feed.items()}
        for theirs, ours in zip(before.run(None, feed), after.run(None, feed), strict=True):
            assert theirs.shape == ours.shape
            if theirs.dtype.kind == "f":
                assert np.array_equal(np.isfinite(theirs), np.isfinite(ours))
                known = np.isfinite(theirs)
                error = np.linalg.norm((theirs - ours)[known].astype(np.float64))
                assert error <= 0.2 * np.linalg.norm(theirs[known].astype(np.float64)) + 1e-5


def rows_of(shape: list[int | str]) -> int:
    """Return how many rows a run takes: a fixed number, or one of any."""
    return shape[0] if isinstance(shape[0], int) else 1


def quiet() -> ort.SessionOptions:
    """Return options that keep onnxruntime from writing to the terminal."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options
