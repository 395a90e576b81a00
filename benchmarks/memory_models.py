"""Four networks with seeded weights, from 1 to 50 MB, for the benchmarks and tests of memory.

mlp: 784-300-100-10. convnet: ResNet-18's shape, 47 MB. convnet-int8: the same, quantized. matmul: three
matrices of 2048 x 2048, 50 MB.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPSET, IR_VERSION = 18, 10
NAMES = ("mlp", "convnet", "convnet-int8", "matmul")
IMAGE = (3, 224, 224)


class Builder:
    """Collects nodes and seeded weights; each method returns the name of what it made."""

    def __init__(self) -> None:
        """Begin with nothing, and always with the same seed."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        """Add a tensor of which a layer keeps its input's magnitude."""
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else shape[0]
        values = self._random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in))
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator."""
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def gemm(self, x: str, inputs: int, outputs: int, output: str = "") -> str:
        """Add a fully connected layer."""
        weights = self.weight(outputs, inputs), self.weight(outputs)
        return self.node("Gemm", x, *weights, output=output, transB=1)

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
        """Add a convolution from and to so many channels."""
        weights = self.weight(channels[1], channels[0], kernel, kernel), self.weight(channels[1])
        return self.node("Conv", x, *weights, pads=[kernel // 2] * 4, strides=[stride, stride])

    def save(self, path: Path, inputs: tuple[int, ...], outputs: int) -> Path:
        """Write the model with input x and output y, both with a batch axis."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *inputs])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])
        graph = helper.make_graph(self.nodes, path.parent.name, [x], [y], self.weights)
        opset = helper.make_opsetid("", OPSET)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION), path)
        return path


def write(name: str, path: Path) -> Path:
    """Write one of NAMES to `path`, whose folder is made."""
    match name:
        case "mlp":
            return _mlp(path)
        case "matmul":
            return _matmul(path)
        case "convnet":
            return _convnet(path)
        case _:
            plain = _convnet(path.with_name("plain.onnx"))
            _quantize(plain, path)
            plain.unlink()
            return path


def row(name: str, rows: int = 1) -> NDArray[np.float32]:
    """Return an input of the network."""
    shape = {"mlp": (784,), "matmul": (2048,)}.get(name, IMAGE)
    return np.random.default_rng(1).standard_normal((rows, *shape), dtype=np.float32)


def _mlp(path: Path) -> Path:
    build = Builder()
    hidden = build.node("Relu", build.gemm("x", 784, 300))
    hidden = build.node("Relu", build.gemm(hidden, 300, 100))
    build.gemm(hidden, 100, 10, output="y")
    return build.save(path, (784,), 10)


def _matmul(path: Path) -> Path:
    build = Builder()
    first = build.node("MatMul", "x", build.weight(2048, 2048))
    second = build.node("MatMul", first, build.weight(2048, 2048))
    build.node("MatMul", second, build.weight(2048, 2048), output="y")
    return build.save(path, (2048,), 2048)


def _convnet(path: Path) -> Path:
    build = Builder()
    x = build.node("Relu", build.conv("x", (3, 64), 7, 2))
    x = build.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = 64
    for after in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if after == before else 2
        deep = build.node("Relu", build.conv(x, (before, after), 3, stride))
        deep = build.conv(deep, (after, after), 3)
        short = x if after == before else build.conv(x, (before, after), 1, stride)
        x = build.node("Relu", build.node("Add", deep, short))
        before = after
    build.gemm(build.node("Flatten", build.node("GlobalAveragePool", x)), 512, 1000, output="y")
    return build.save(path, IMAGE, 1000)


class _Samples(CalibrationDataReader):
    """A few seeded images; what is measured does not depend on the ranges."""

    def __init__(self) -> None:
        self._left = [row("convnet"), row("convnet")]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return {"x": self._left.pop()} if self._left else None


def _quantize(source: Path, target: Path) -> None:
    # It advises a preparation of the graph that these graphs do not need.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            source,
            target,
            _Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
