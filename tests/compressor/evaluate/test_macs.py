"""Counting multiply-accumulates."""

import onnx
import pytest

from flyweight.compressor.evaluate.macs import count_macs
from flyweight.compressor.feeding import Layout
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8

# 16x16 outputs by 16 channels by 3x3x3, 7x7 by 32 by 16x3x3, and the last product.
CONVNET = 16 * 16 * 16 * 27 + 7 * 7 * 32 * 16 * 9 + 32 * 10


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
    assert count_macs(load_graph(made, weights=False), layout) == CONVNET


def test_unknown_shapes_give_no_number(models) -> None:
    model = load_graph(models.convnet())
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].Clear()
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = "any"
    assert count_macs(model, Layout(frozenset({"image"}), None)) is None


def test_counting_changes_nothing(models) -> None:
    model = load_graph(models.convnet())
    before = model.SerializeToString(deterministic=True)
    count_macs(model, Layout(frozenset({"image"}), None))
    assert onnx.ModelProto.FromString(before) == model
