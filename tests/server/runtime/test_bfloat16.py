"""Models with bfloat16 tensors in every runtime: numpy has no such type, onnxruntime's `run` takes none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from flyweight.protos import tensors
from flyweight.protos.tensors.bfloat16 import narrow_to_bfloat16, widen_bfloat16
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.golden import warm_up
from flyweight.server.runtime.independence import measure_independence
from flyweight.server.runtime.seam import RuntimeFactory, SessionSettings
from flyweight.server.runtime.signature import BFLOAT16

VALUES = np.array([[1.5, -2.0], [0.0, np.inf], [3.0, -0.0]], np.float32)


def write_model(path: Path, nodes: list[Any], outputs: dict[str, int], *more_inputs: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "bfloat16",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["n", 2]), *more_inputs],
        [helper.make_tensor_value_info(name, element, None) for name, element in outputs.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write y = x, wide = float32(x), said = text(wide)."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["wide"], ["said"], to=TensorProto.STRING),
    ]
    outputs = {"y": TensorProto.BFLOAT16, "wide": TensorProto.FLOAT, "said": TensorProto.STRING}
    return write_model(tmp_path / "model.onnx", nodes, outputs)


def test_it_is_the_protocols_type() -> None:
    assert tensors.BFLOAT16 == BFLOAT16
    assert tensors.datatype_of(np.zeros(1, BFLOAT16)) == "BF16"


def test_bfloat16_goes_in_and_out_beside_other_types(factory: RuntimeFactory, model: Path) -> None:
    runtime = factory.load(model, SessionSettings())
    assert [spec.datatype for spec in runtime.signature.inputs] == ["BF16"]
    narrow = narrow_to_bfloat16(VALUES)
    narrow.flags.writeable = False
    outputs = runtime.run({"x": narrow}).outputs
    assert outputs["y"].dtype == BFLOAT16
    np.testing.assert_array_equal(widen_bfloat16(outputs["y"]), VALUES)
    np.testing.assert_array_equal(outputs["wide"], VALUES)
    assert outputs["said"].tolist() == [[b"1.5", b"-2"], [b"0", b"INF"], [b"3", b"-0"]]


def test_answers_outlive_the_next_run(factory: RuntimeFactory, model: Path) -> None:
    runtime = factory.load(model, SessionSettings())
    first = runtime.run({"x": narrow_to_bfloat16(VALUES)}, ["y"]).outputs["y"]
    for _ in range(5):
        runtime.run({"x": narrow_to_bfloat16(VALUES * 2)}, ["y"])
    np.testing.assert_array_equal(widen_bfloat16(first), VALUES)


def test_a_tensor_of_nothing_is_a_tensor(factory: RuntimeFactory, model: Path) -> None:
    runtime = factory.load(model, SessionSettings())
    empty = narrow_to_bfloat16(np.empty((0, 2), np.float32))
    outputs = runtime.run({"x": empty}).outputs
    assert (outputs["y"].dtype, outputs["y"].shape) == (BFLOAT16, (0, 2))


def test_it_is_warmed_up_with_zeros_and_its_rows_are_looked_at(factory: RuntimeFactory, model: Path) -> None:
    runtime = factory.load(model, SessionSettings())
    assert warm_up(runtime, runtime.signature) == ""
    assert measure_independence(runtime, replace(runtime.signature, max_batch_rows=8)).independent


def test_rows_that_mind_each_other_are_seen(factory: RuntimeFactory, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["wide"], ["most"], keepdims=1),
        helper.make_node("Div", ["wide", "most"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["y"], to=TensorProto.BFLOAT16),
    ]
    path = write_model(tmp_path / "model.onnx", nodes, {"y": TensorProto.BFLOAT16})
    runtime = factory.load(path, SessionSettings())
    verdict = measure_independence(runtime, replace(runtime.signature, max_batch_rows=8))
    assert not verdict.independent
    assert "'y'" in verdict.reason


def test_a_model_that_takes_text_too_is_refused_by_name(factory: RuntimeFactory, tmp_path: Path) -> None:
    words = helper.make_tensor_value_info("words", TensorProto.STRING, ["n"])
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["words"], ["said"])]
    outputs = {"y": TensorProto.BFLOAT16, "said": TensorProto.STRING}
    path = write_model(tmp_path / "model.onnx", nodes, outputs, words)
    with pytest.raises(LoadFailed, match="takes text in 'words' and has tensors of bfloat16"):
        factory.load(path, SessionSettings())
