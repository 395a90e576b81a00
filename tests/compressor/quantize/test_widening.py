"""Half-precision graphs, widened before they are quantized."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.data import DataSet
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import DynamicInt8, StaticInt8, WeightOnly
from flyweight.compressor.passes.quantize.widening import widen
from flyweight.compressor.sessions import Session, SessionSettings

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def halved(path, kinds: tuple[int, int] = (HALF, HALF)) -> onnx.ModelProto:
    """Return the graph in halves, its input and output too unless `kinds` says otherwise."""
    model = load_graph(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    model.graph.input[0].type.tensor_type.elem_type = kinds[0]
    model.graph.output[0].type.tensor_type.elem_type = kinds[1]
    return model


@pytest.mark.parametrize("step", [StaticInt8(), DynamicInt8(), WeightOnly()], ids=repr)
def test_halves_are_quantized_and_keep_their_inputs_and_outputs(step, models, rows, context_of) -> None:
    path = models.convnet()
    onnx.save(halved(path), path)
    data = DataSet({"image": rows(image=(3, 16, 16)).inputs["image"].astype(np.float16)})
    made = step(Model(path=path), context_of(data)).model.onnx_path()
    before, after = Session(path, SessionSettings()), Session(made, SessionSettings())
    assert before.signature.difference(after.signature) is None
    assert after.signature.inputs[0].dtype == np.float16
    expected, found = (s.run(data.inputs)["scores"].astype(np.float32) for s in (before, after))
    assert np.square(found - expected).sum() < 0.01 * np.square(expected).sum()
    assert made.stat().st_size < path.stat().st_size


def test_a_graph_in_fp32_stays_as_it_is(models) -> None:
    model = load_graph(models.convnet())
    before = model.SerializeToString(deterministic=True)
    assert not widen(model)
    assert model.SerializeToString(deterministic=True) == before


def test_casts_to_halves_and_the_bodies_of_ifs_are_widened(models) -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["y_in"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y_in", HALF, None)],
        [numpy_helper.from_array(np.eye(4, dtype=np.float16), "w")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["h"], to=HALF),
            helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch),
        ],
        "cast",
        [
            helper.make_tensor_value_info("x", FLOAT, ["n", 4]),
            helper.make_tensor_value_info("which", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", HALF, ["n", 4])],
    )
    path = models.write(graph)
    model = load_graph(path)
    assert widen(model)
    onnx.save(model, path)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (answer,) = Session(path, SessionSettings()).run({"x": x, "which": np.array(True)}).values()
    assert answer.dtype == np.float16
    assert np.array_equal(answer, x)


def test_an_input_that_is_an_output_is_left_alone(models) -> None:
    model = halved(models.convnet())
    model.graph.output.append(model.graph.input[0])
    assert not widen(model)


def test_a_stored_output_keeps_its_type_and_values(models) -> None:
    kept = np.eye(4, dtype=np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "stored",
        [helper.make_tensor_value_info("x", HALF, ["n", 4])],
        [
            helper.make_tensor_value_info("y", HALF, ["n", 4]),
            helper.make_tensor_value_info("w", HALF, [4, 4]),
        ],
        [numpy_helper.from_array(kept, "w")],
    )
    path = models.write(graph)
    model = load_graph(path)
    assert widen(model)
    onnx.save(model, path)
    answers = Session(path, SessionSettings()).run({"x": kept})
    assert answers["w"].dtype == np.float16
    assert np.array_equal(answers["w"], kept)
    assert np.array_equal(answers["y"], kept)
