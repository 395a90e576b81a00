"""Writes the suite's models as a repository in Triton's layout, of ONNX files or of Python."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from oip.models import LABELS, MODELS, Model, config_text

_FOLDER: Final = Path(__file__).parent
# What ONNX Runtime 1.16 and everything since can read.
_OPSET: Final = 18
_IR_VERSION: Final = 9
_PYTHON_MODEL: Final = '''\
"""A model of the conformance suite for Triton's Python backend."""

import sys
from pathlib import Path

import triton_python_backend_utils as pb

sys.path.insert(0, str(Path(__file__).parent))
import functions


class TritonPythonModel:
    """Hands each request to the function of the model."""

    def initialize(self, args):
        """Find the function by the model's name."""
        self._run = functions.function_of(args["model_name"])

    def execute(self, requests):
        """Answer the requests one by one."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        outputs = self._run(inputs)
        return pb.InferenceResponse([pb.Tensor(name, array) for name, array in outputs.items()])
'''


def write_onnx_repository(root: Path) -> None:
    """Write every model as <root>/<model>/1/model.onnx with its config.pbtxt; needs the package onnx."""
    from onnx import helper

    for model in MODELS:
        graph = _GRAPHS.get(model.name, _identity)(model)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        _version_folder(root, model, "onnxruntime").joinpath("model.onnx").write_bytes(
            made.SerializeToString()
        )


def write_python_repository(root: Path) -> None:
    """Write every model for Triton's Python backend."""
    for model in MODELS:
        # The backend has no BF16, and Triton has no tensors without an axis.
        if model.name in {"identity_bf16", "scalar"}:
            continue
        folder = _version_folder(root, model, "python")
        folder.joinpath("model.py").write_text(_PYTHON_MODEL)
        shutil.copy(_FOLDER / "functions.py", folder)


def _version_folder(root: Path, model: Model, backend: str) -> Path:
    folder = root / model.name / "1"
    folder.mkdir(parents=True)
    (root / model.name / "config.pbtxt").write_text(config_text(model, backend))
    if model.name == "classes":
        (root / model.name / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    return folder


def _values(model: Model) -> tuple[list[Any], list[Any]]:
    from onnx import TensorProto, helper

    types = {
        "FP16": TensorProto.FLOAT16,
        "BF16": TensorProto.BFLOAT16,
        "FP32": TensorProto.FLOAT,
        "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }
    return tuple(  # type: ignore[return-value]
        [
            helper.make_tensor_value_info(
                tensor.name,
                types.get(tensor.datatype) or getattr(TensorProto, tensor.datatype),
                [f"n{axis}" if length < 0 else length for axis, length in enumerate(model.shape(tensor))],
            )
            for tensor in tensors
        ]
        for tensors in (model.inputs, model.outputs)
    )


def _graph(model: Model, nodes: list[Any], initializers: list[Any] | None = None) -> Any:
    from onnx import helper

    inputs, outputs = _values(model)
    return helper.make_graph(nodes, model.name, inputs, outputs, initializers)


def _identity(model: Model) -> Any:
    from onnx import helper

    return _graph(model, [helper.make_node("Identity", ["INPUT"], ["OUTPUT"])])


def _add_sub(model: Model) -> Any:
    from onnx import helper

    inputs = ["INPUT0", "INPUT1"]
    return _graph(
        model, [helper.make_node("Add", inputs, ["OUTPUT0"]), helper.make_node("Sub", inputs, ["OUTPUT1"])]
    )


def _transpose(model: Model) -> Any:
    from onnx import helper

    return _graph(model, [helper.make_node("Transpose", ["INPUT"], ["OUTPUT"], perm=[1, 0])])


def _slow(model: Model) -> Any:
    """Return ROUNDS multiplications by the identity matrix, and the mean of the ones that they leave."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {"eye": np.eye(128, dtype=np.float32), "ones": np.ones((32, 128), np.float32)}
    flag = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    flag_too = helper.make_tensor_value_info("go_on_too", TensorProto.BOOL, [])
    square = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, 128]) for name in ("before", "after")
    ]
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    nodes = [
        helper.make_node("MatMul", ["before", "eye"], ["after"]),
        helper.make_node("Identity", ["go_on"], ["go_on_too"]),
    ]
    body = helper.make_graph(nodes, "body", [step, flag, square[0]], [flag_too, square[1]])
    return _graph(
        model,
        [
            helper.make_node("Squeeze", ["ROUNDS"], ["count"]),
            helper.make_node("Loop", ["count", "", "ones"], ["left"], body=body),
            helper.make_node("ReduceMean", ["left"], ["mean"], keepdims=0),
            helper.make_node("Reshape", ["mean", "one"], ["OUTPUT"]),
        ],
        [
            *(numpy_helper.from_array(array, name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )


def _counter(model: Model) -> Any:
    """Return INPUT plus the state, which START clears; Triton's implicit state carries it on."""
    from onnx import TensorProto, helper, numpy_helper

    inputs, outputs = _values(model)
    rows = [
        helper.make_tensor_value_info(name, TensorProto.INT32, ["n0", 1]) for name in ("STATE_IN", "START")
    ]
    state = helper.make_tensor_value_info("STATE_OUT", TensorProto.INT32, ["n0", 1])
    nodes = [
        helper.make_node("Sub", ["one", "START"], ["keep"]),
        helper.make_node("Mul", ["STATE_IN", "keep"], ["kept"]),
        helper.make_node("Add", ["INPUT", "kept"], ["OUTPUT"]),
        helper.make_node("Identity", ["OUTPUT"], ["STATE_OUT"]),
    ]
    one = numpy_helper.from_array(np.array(1, np.int32), "one")
    return helper.make_graph(nodes, model.name, [*inputs, *rows], [*outputs, state], [one])


_GRAPHS: Final[dict[str, Callable[[Model], Any]]] = {
    "add_sub": _add_sub,
    "transpose": _transpose,
    "slow": _slow,
    "counter": _counter,
}
