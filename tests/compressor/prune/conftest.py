"""Fixtures of pruning: contexts and data; what needs torch is skipped without it."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet

WITHOUT_TORCH = {
    "test_masks.py",
    "test_schedule.py",
    "test_allocation.py",
    "test_choice.py",
    "test_divergence.py",
    "test_sparsify_graph.py",
    "test_graph_channels.py",
    "test_elimination.py",
    "test_second_moments.py",
    "test_graph_work.py",
    "test_prune_graph.py",
}
HERE = Path(__file__).parent
collect_ignore = (
    []
    if find_spec("torch")
    else [path.name for path in HERE.glob("test_*.py") if path.name not in WITHOUT_TORCH]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.path.name not in WITHOUT_TORCH:
            item.add_marker(pytest.mark.torch)


class Sketch:
    """Writes a graph node by node; every method that adds something returns its name."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        name = f"constant{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def vector(self, *shape: int) -> str:
        return self.constant(self.random.uniform(0.5, 1.5, shape).astype(np.float32))

    def weight(self, *shape: int, inputs: int) -> str:
        values = self.random.standard_normal(shape) / np.sqrt(inputs)
        return self.constant(values.astype(np.float32))

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, source: str, inputs: int, outputs: int, *kernel: int, **attributes: object) -> str:
        """Write a convolution with a bias; one of `inputs` 1 and a `group` is depthwise."""
        weight = self.weight(outputs, inputs, *kernel, inputs=inputs * int(np.prod(kernel)))
        return self.node("Conv", source, weight, self.vector(outputs), **attributes)

    def gemm(self, source: str, inputs: int, outputs: int, **attributes: object) -> str:
        weight = self.weight(inputs, outputs, inputs=inputs)
        return self.node("Gemm", source, weight, self.vector(outputs), **attributes)

    def matmul(self, source: str, inputs: int, outputs: int) -> str:
        return self.node("MatMul", source, self.weight(inputs, outputs, inputs=inputs))

    def model(self, x: list[int | str], *outputs: str) -> onnx.ModelProto:
        """Return the graph from an input x to some outputs, with the shapes of all tensors."""
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, x)
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "sketch", [value], given, self.stored)
        made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)


@pytest.fixture
def sketch() -> Sketch:
    return Sketch()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads."""
    if find_spec("torch") is None:
        yield
        return
    from flyweight.compressor.training import threads

    with threads(1):
        yield


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., Context]:
    def make(data: DataSet, **changes: object) -> Context:
        return Context(workspace=tmp_path / "work", calibration=data, **changes)

    return make


@pytest.fixture
def images(quarters: Callable[..., DataSet]) -> DataSet:
    return quarters(320)


@pytest.fixture
def tokens() -> DataSet:
    """48 sequences of six tokens of 32 features."""
    return DataSet({"tokens": np.random.default_rng(0).normal(size=(48, 6, 32)).astype(np.float32)})
