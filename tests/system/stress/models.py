"""Models whose right answer everybody knows, y = scale * x, and whose cost is chosen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import publish_variant

WIDTH = 64
_OPSET, _IR_VERSION = 18, 10
# Multiplications of some milliseconds together, on a machine of today.
HEAVY_STEPS = 4000


def model_bytes(scale: float, steps: int = 0) -> bytes:
    """Return a model with y = scale * x for x of FP32 [n, 64], which multiplies by a matrix `steps` times.

    The matrix is the identity and the scale a small whole number, so that every answer is exact.
    """
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy"]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "w"], ["after"]),
            helper.make_node("Identity", ["on"], ["go"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n", WIDTH]),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n", WIDTH]),
        ],
    )
    constants = {
        "scale": np.array(scale, np.float32),
        "steps": np.array(steps, np.int64),
        "w": np.eye(WIDTH, dtype=np.float32),
    }
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"])]
    if steps:
        nodes.append(helper.make_node("Loop", ["steps", "", "scaled"], ["y"], body=body))
    else:
        nodes.append(helper.make_node("Identity", ["scaled"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "stress",
        row[:1],
        row[1:],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def publish(repository: Path, model: str, variant: str, scale: float, steps: int = 0) -> Path:
    """Publish a variant, in the place of one of this name if there is one."""
    content = model_bytes(scale, steps)

    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(content)

    return publish_variant(repository, VariantManifest(model=model, variant=variant), fill)


def publish_raw(repository: Path, model: str, variant: str, fill: Callable[[Path], object]) -> Path:
    """Put a folder of any content into the repository, whole at once."""
    folder = repository / model / variant
    staging = folder.with_name(f".{variant}.new")
    staging.mkdir(parents=True)
    fill(staging)
    staging.rename(folder)
    return folder


def set_traffic(repository: Path, model: str, text: str) -> None:
    """Write a model's traffic.yaml, whole at once."""
    path = repository / model / "traffic.yaml"
    path.with_name(".traffic.yaml.new").write_text(text)
    path.with_name(".traffic.yaml.new").rename(path)
