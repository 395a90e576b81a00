"""Small networks written node by node, and one trained on scikit-learn's digits: no torch, no downloads."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.sessions import SessionSettings

OPSET = 17


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find what another one made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))


class Models:
    """Writes ONNX files into a folder; every method returns a path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = np.random.default_rng(0)

    def write(self, graph: onnx.GraphProto, name: str = "model", opset: int = OPSET) -> Path:
        path = self.folder / f"{name}.onnx"
        imports = [helper.make_opsetid("", opset)]
        onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=imports), path)
        return path

    def weight(self, name: str, *shape: int) -> onnx.TensorProto:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((self.random.standard_normal(shape) * scale).astype(np.float32), name)

    def mlp(self, batch: int | str = "n", *, constants: bool = False, name: str = "mlp") -> Path:
        """X (batch, 16) -> scores (batch, 10); weights in Constant nodes if asked."""
        weights = [self.weight("w1", 64, 16), self.weight("w2", 10, 64)]
        nodes = [
            helper.make_node("Gemm", ["x", "w1"], ["h"], name="first", transB=1),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "w2"], ["scores"], name="second", transB=1),
        ]
        if constants:
            nodes = [
                *(helper.make_node("Constant", [], [weight.name], value=weight) for weight in weights),
                *nodes,
            ]
        graph = helper.make_graph(
            nodes,
            "mlp",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 16])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 10])],
            [] if constants else weights,
        )
        return self.write(graph, name)

    def convnet(self, name: str = "convnet") -> Path:
        """Image (n, 3, 16, 16) -> scores (n, 10), two convolutions and a product."""
        nodes = [
            helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", strides=[2, 2]),
            helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
            helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w3"], ["scores"], name="last", transB=1),
        ]
        weights = [self.weight("w1", 16, 3, 3, 3), self.weight("w2", 32, 16, 3, 3), self.weight("w3", 10, 32)]
        graph = helper.make_graph(
            nodes,
            "convnet",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
            weights,
        )
        return self.write(graph, name)

    def scaled(self) -> Path:
        """X (n, 4) and a scalar factor -> y (n, 4): one input without a batch axis."""
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "factor"], ["y"])],
            "scaled",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
                helper.make_tensor_value_info("factor", TensorProto.FLOAT, []),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        )
        return self.write(graph, "scaled")

    def choosing(self) -> Path:
        """A product inside the branches of an If, and two outputs, one of integers."""
        branches = [
            helper.make_graph(
                [helper.make_node("MatMul", ["x", weight.name], [f"{weight.name}_out"])],
                weight.name,
                [],
                [helper.make_tensor_value_info(f"{weight.name}_out", TensorProto.FLOAT, None)],
                [weight],
            )
            for weight in (self.weight("yes", 8, 32), self.weight("no", 8, 32))
        ]
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
            helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "choosing",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32]),
                helper.make_tensor_value_info("best", TensorProto.INT64, ["n"]),
            ],
            [numpy_helper.from_array(np.array(0, dtype=np.float32), "zero")],
        )
        return self.write(graph, "choosing")

    def identity(self, element: int, shape: list[int | str]) -> Path:
        """X -> y, of any type."""
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "identity",
            [helper.make_tensor_value_info("x", element, shape)],
            [helper.make_tensor_value_info("y", element, shape)],
        )
        return self.write(graph, "identity")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


@pytest.fixture
def rows() -> Callable[..., DataSet]:
    """Make a data set of normal floats from the names and sample shapes of inputs."""

    def make(samples: int = 64, **shapes: tuple[int, ...]) -> DataSet:
        random = np.random.default_rng(1)
        return DataSet(
            {
                name: random.standard_normal((samples, *shape)).astype(np.float32)
                for name, shape in shapes.items()
            }
        )

    return make


@pytest.fixture
def context_of(tmp_path: Path) -> Callable[[DataSet], Context]:
    """Make the surroundings of a pass that calibrates on the given data."""

    def make(data: DataSet) -> Context:
        workspace = tmp_path / "work"
        workspace.mkdir(exist_ok=True)
        return Context(workspace=workspace, calibration=data)

    return make


@pytest.fixture
def quarters() -> Callable[..., DataSet]:
    """Make images of 8x8 in four classes: which quarter is bright. Easy, so that training is quick."""

    def make(samples: int, noise: float = 0.5) -> DataSet:
        generator = np.random.default_rng(0)
        labels = generator.integers(0, 4, samples)
        pixels = generator.normal(0.0, noise, (samples, 1, 8, 8)).astype(np.float32)
        for image, label in zip(pixels, labels, strict=True):
            top, left = 4 * (label // 2), 4 * (label % 2)
            image[0, top : top + 4, left : left + 4] += 1.0
        return DataSet({"image": pixels}, labels)

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataSet]:
    """A network that reads digits (64 -> 128 -> 64 -> 10), trained here, and 600 images it never saw."""
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    network = MLPClassifier((128, 64), max_iter=25, random_state=0)
    with warnings.catch_warnings():
        # Good enough for a test is sooner than scikit-learn's idea of convergence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(images[:1197], labels[:1197])
    nodes, initializers, name = [], [], "x"
    for layer, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        initializers.append(numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"))
        initializers.append(numpy_helper.from_array(bias.astype(np.float32), f"b{layer}"))
        target = "scores" if layer == 2 else f"h{layer}"
        nodes.append(
            helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [target], name=f"gemm{layer}")
        )
        name = f"r{layer}"
        if layer < 2:
            nodes.append(helper.make_node("Relu", [target], [name], name=f"relu{layer}"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        initializers,
    )
    path = Models(tmp_path_factory.mktemp("digits")).write(graph, "digits")
    return path, DataSet({"x": images[1197:]}, labels[1197:])


class FixedMeter:
    """Stands in for the meter that starts a process for each model, which test_memory.py tests."""

    def __init__(self, folder: Path, settings: SessionSettings) -> None:
        self.folder = folder

    def growth_bytes(self, model: Path, feed: Mapping[str, np.ndarray]) -> int:
        return 10_000_000


@pytest.fixture
def no_memory_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.compressor.evaluate.bench.MemoryMeter", FixedMeter)
