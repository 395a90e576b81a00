"""Counting multiply-accumulates."""

import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.evaluate.macs import count_macs, explain_macs
from flyweight.compressor.feeding import Layout
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8

# 16x16 outputs by 16 channels by 3x3x3, 7x7 by 32 by 16x3x3, and the last product.
CONVNET = 16 * 16 * 16 * 27 + 7 * 7 * 32 * 16 * 9 + 32 * 10
# Integer kernels want channels in fours: the image gets a fourth, of zeros.
PADDED = 16 * 16 * 16 * 36 + 7 * 7 * 32 * 16 * 9 + 32 * 10


def test_a_convnets_are_as_computed_by_hand(models) -> None:
    layout = Layout(frozenset({"image"}), None)
    assert count_macs(load_graph(models.convnet(), weights=False), layout) == CONVNET


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_they_are_counted_for_one_row_whatever_the_batch(models, batch) -> None:
    layout = Layout(frozenset({"x"}), None if batch == "n" else batch)
    assert count_macs(load_graph(models.mlp(batch=batch)), layout) == 16 * 64 + 64 * 10


@pytest.mark.parametrize(
    "step", [StaticInt8(), DynamicInt8(), DynamicInt8(convolutions="integer"), Fp16Storage()], ids=repr
)
def test_fewer_bits_leave_their_number(step, models, rows, context_of) -> None:
    made = step(Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))).model.onnx_path()
    layout = Layout(frozenset({"image"}), None)
    assert count_macs(load_graph(made, weights=False), layout) in {CONVNET, PADDED}


def test_unknown_shapes_give_no_number(models) -> None:
    model = load_graph(models.convnet())
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].Clear()
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = "any"
    count, reason = explain_macs(model, Layout(frozenset({"image"}), None))
    assert count is None
    assert reason == "The shapes around Conv 'conv1' are not known."


def test_counting_changes_nothing(models) -> None:
    model = load_graph(models.convnet())
    before = model.SerializeToString(deterministic=True)
    count_macs(model, Layout(frozenset({"image"}), None))
    assert onnx.ModelProto.FromString(before) == model


def test_products_that_the_data_decide_about_are_not_counted(models) -> None:
    count, reason = explain_macs(load_graph(models.choosing()), Layout(frozenset({"x"}), None))
    assert count is None
    assert "inside an If or a Loop" in reason


def test_a_recurrent_cell_multiplies_in_every_step(models) -> None:
    """5 steps of 3 inputs and 4 units: 4 gates of 4 x (3 + 4), five times."""
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 1, 1, 4])],
        [models.weight("w", 1, 16, 3), models.weight("r", 1, 16, 4)],
    )
    layout = Layout(frozenset(), 1)
    assert count_macs(load_graph(models.write(graph)), layout) == 5 * 16 * 7


def test_an_operator_that_hides_its_products_is_named(models) -> None:
    graph = helper.make_graph(
        [helper.make_node("Einsum", ["x", "w"], ["y"], equation="ni,io->no")],
        "einsum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [models.weight("w", 3, 4)],
    )
    assert "Einsum" in explain_macs(load_graph(models.write(graph)), Layout(frozenset({"x"}), None))[1]
