"""Counting multiply-accumulates."""

import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.evaluate.macs import count_macs, explain_macs
from flyweight.compressor.feeding import Layout
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8, WeightOnly
from flyweight.compressor.sessions import quiet_tools

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


def test_one_in_the_body_of_an_if_is_named_too(models) -> None:
    result = helper.make_tensor_value_info("y_in", TensorProto.FLOAT, None)
    einsum = helper.make_node("Einsum", ["x", "w"], ["y_in"], equation="ni,io->no")
    branch = helper.make_graph([einsum], "branch", [], [result], [models.weight("w", 3, 4)])
    graph = helper.make_graph(
        [helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch)],
        "choosing",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("which", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    count, reason = explain_macs(load_graph(models.write(graph)), Layout(frozenset({"x"}), None))
    assert count is None
    assert "(Einsum) inside an If or a Loop" in reason


def attention_graph(models, heads: bool, **attributes: int):
    """Two rows of 5 queries and 7 keys, 3 heads of 4 numbers, values of 6."""
    shapes = [[2, 3, 5, 4], [2, 3, 7, 4], [2, 3, 7, 6]] if heads else [[2, 5, 12], [2, 7, 12], [2, 7, 18]]
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)],
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("qkv", shapes, strict=True)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return load_graph(models.write(graph, opset=23))


def test_attention_multiplies_queries_with_keys_and_weights_with_values(models) -> None:
    """For each row 3 heads of 5 x 7 products, of 4 numbers for the scores and 6 for the sums."""
    layout = Layout(frozenset("qkv"), 2)
    assert count_macs(attention_graph(models, heads=True), layout) == 3 * 5 * 7 * (4 + 6)
    flat = attention_graph(models, heads=False, q_num_heads=3, kv_num_heads=3)
    assert count_macs(flat, layout) == 3 * 5 * 7 * (4 + 6)


def test_attention_that_projects_may_have_values_of_another_length(models) -> None:
    """5 places times weights of 4 x (6 + 6 + 10), and 5 x 5 products of 6 numbers for scores, 10 for sums."""
    node = helper.make_node(
        "Attention",
        ["x", "w", "b"],
        ["y"],
        domain="com.microsoft",
        num_heads=2,
        qkv_hidden_sizes=[6, 6, 10],
    )
    graph = helper.make_graph(
        [node],
        "projecting",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 10])],
        [models.weight("w", 4, 22), models.weight("b", 22)],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains)
    assert count_macs(model, Layout(frozenset({"x"}), 1)) == 5 * 4 * 22 + 5 * 5 * (6 + 10)


def test_keys_of_earlier_runs_are_not_guessed(models) -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b", "", "past"], ["y"], domain="com.microsoft", num_heads=2
    )
    graph = helper.make_graph(
        [node],
        "decoding",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("past", TensorProto.FLOAT, [2, 1, 2, 9, 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4])],
        [models.weight("w", 4, 12), models.weight("b", 12)],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    count, reason = explain_macs(helper.make_model(graph, opset_imports=domains), Layout(frozenset("x"), 1))
    assert count is None
    assert "Attention" in reason


def test_weights_in_four_bits_leave_the_number(models, rows, context_of) -> None:
    product = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 96])],
        [models.weight("w", 64, 96)],
    )
    source = Model(path=models.write(product))
    graph = load_graph(WeightOnly(bits=4)(source, context_of(rows(x=(5, 64)))).model.onnx_path())
    assert "MatMulNBits" in {node.op_type for node in graph.graph.node}
    assert count_macs(graph, Layout(frozenset({"x"}), None)) == 5 * 64 * 96


def test_operators_on_bytes_are_counted(models, rows, tmp_path) -> None:
    """Onnxruntime's QOperator format: QLinearConv, QLinearGlobalAveragePool, QGemm."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"image": rows(image=(3, 16, 16)).inputs["image"]}])

        def get_next(self):
            return next(self.feeds, None)

    made = tmp_path / "bytes.onnx"
    with quiet_tools():
        quantize_static(
            models.convnet(), made, Reader(), quant_format=QuantFormat.QOperator, weight_type=QuantType.QInt8
        )
    graph = load_graph(made)
    assert {"QLinearConv", "QGemm"} <= {node.op_type for node in graph.graph.node}
    assert count_macs(graph, Layout(frozenset({"image"}), None)) == CONVNET


def test_what_is_fed_says_how_long_free_axes_are(models) -> None:
    model = load_graph(models.convnet())
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = "any"
    layout, fed = Layout(frozenset({"image"}), None), {"image": (8, 3, 16, 16)}
    assert count_macs(model, layout, fed) == CONVNET
