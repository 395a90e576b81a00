"""Models that are not worth starting with are told before anything is done."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.soundness import check_inputs, check_source


def with_weight(
    path: Path, values: np.ndarray, element: int = TensorProto.FLOAT, *, external: bool = False
) -> Path:
    """Rewrite the first weight of a model."""
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    raw = numpy_helper.from_array(values, tensor.name)
    if element == TensorProto.BFLOAT16:
        raw = helper.make_tensor(tensor.name, element, values.shape, values.reshape(-1))
    tensor.CopyFrom(raw)
    onnx.save_model(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize(
    ("value", "told"), [(np.nan, "not-a-number"), (np.inf, "infinite values"), (-np.inf, "infinite values")]
)
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_a_broken_weight_is_named(value: float, told: str, element: int, external: bool, models) -> None:
    dtype = np.float16 if element == TensorProto.FLOAT16 else np.float32
    values = np.zeros((64, 16), dtype)
    values[63, 15] = value
    path = with_weight(models.mlp(), values, element, external=external)
    with pytest.raises(ModelError, match=f"weight 'w1' holds {told}: training diverged"):
        check_source(path)


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
def test_a_sound_model_passes(external: bool, models) -> None:
    check_source(with_weight(models.mlp(), np.ones((64, 16), np.float32), external=external))


def test_a_broken_weight_in_a_constant_node_or_a_branch_is_found(models) -> None:
    model = onnx.load(models.choosing())
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    values = np.full((8, 32), np.nan, np.float32)
    branch.initializer[0].CopyFrom(numpy_helper.from_array(values, branch.initializer[0].name))
    onnx.save_model(model, models.folder / "branch.onnx")
    with pytest.raises(ModelError, match="holds not-a-number"):
        check_source(models.folder / "branch.onnx")


def test_infinities_that_mask_are_no_fault(models) -> None:
    """The mask of a causal attention is minus infinity above its diagonal, and is added."""
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "mask"], ["y"])],
        "masked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 4])],
        [numpy_helper.from_array(mask, "mask")],
    )
    check_source(models.write(graph, "masked"))


def test_an_input_without_a_shape_is_told_with_advice(models) -> None:
    model = onnx.load(models.mlp())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="input 'x' has no shape; export the model with one"):
        check_inputs(model)


def test_a_single_number_is_a_shape(models) -> None:
    check_inputs(onnx.load(models.scaled()))


def test_bytes_that_do_not_fit_their_shape_are_told(models) -> None:
    model = onnx.load(models.mlp())
    model.graph.initializer[0].raw_data = b"\0" * 10
    onnx.save_model(model, models.folder / "short.onnx")
    with pytest.raises(ModelError, match="tensor 'w1' cannot be read"):
        check_source(models.folder / "short.onnx")
