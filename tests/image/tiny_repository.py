"""Write a model repository with tiny ONNX models in it, as Triton lays one out.

    python tests/image/tiny_repository.py FOLDER [MODEL VARIANT...]      (tiny baseline int8 when not said)

Every variant takes "x" (FP32, [-1, 16]) and gives "y" = x W (FP32, [-1, 16]).
"""

import sys
import uuid
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16


def tiny_model(seed: int = 0) -> onnx.ModelProto:
    """Return y = x W with a seeded W, in a version that every onnxruntime since 1.14 reads."""
    weights = np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_variant(repository: Path, model: str, variant: str) -> None:
    """Write repository/model/variant/model.onnx; a server that watches sees all of it or nothing."""
    hidden = repository / model / f".{variant}.{uuid.uuid4().hex[:8]}"
    hidden.mkdir(parents=True)
    onnx.save(tiny_model(), hidden / "model.onnx")
    hidden.rename(hidden.with_name(variant))


if __name__ == "__main__":
    folder, *named = sys.argv[1:]
    name, *variants = named or ["tiny", "baseline", "int8"]
    for each in variants:
        write_variant(Path(folder), name, each)
