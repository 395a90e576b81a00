"""Two networks for the benchmarks: one that costs less than its request does, and one about as much."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 10


class Builder:
    """Collects nodes and seeded weights; each method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else shape[0]
        values = self._random.standard_normal(shape) / np.sqrt(fan_in)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def gemm(self, x: str, inputs: int, outputs: int, output: str = "") -> str:
        return self.node(
            "Gemm", x, self.weight(outputs, inputs), self.weight(outputs), output=output, transB=1
        )

    def conv(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        weights = self.weight(outputs, inputs, 3, 3), self.weight(outputs)
        made = self.node("Conv", x, *weights, pads=[1, 1, 1, 1], strides=[stride, stride])
        return self.node("Relu", made)


def mlp(build: Builder) -> None:
    hidden = build.node("Relu", build.gemm("x", 784, 300))
    hidden = build.node("Relu", build.gemm(hidden, 300, 100))
    build.gemm(hidden, 100, 10, output="y")


def convnet(build: Builder) -> None:
    x = build.conv("x", 1, 32)
    for inputs, outputs, stride in ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 2)):
        x = build.conv(x, inputs, outputs, stride)
    x = build.node("Flatten", build.node("GlobalAveragePool", x))
    build.gemm(x, 64, 10, output="y")


@dataclass(frozen=True)
class Spec:
    """A network by name, how it is called in tables, and the shape of one input."""

    name: str
    title: str
    shape: tuple[int, ...]

    def sample(self) -> NDArray[np.float32]:
        return np.random.default_rng(1).standard_normal((1, *self.shape)).astype(np.float32)

    def write(self, path: Path) -> None:
        build = Builder()
        {"mlp": mlp, "convnet": convnet}[self.name](build)
        graph = helper.make_graph(
            build.nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
            build.weights,
        )
        opset = [helper.make_opsetid("", OPSET)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()
        )


MODELS = (
    Spec("mlp", "MLP 784-300-100-10", (784,)),
    Spec("convnet", "convnet of 5 layers, 28 x 28", (1, 28, 28)),
)
