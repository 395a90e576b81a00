"""Layers, names and shapes of imported modules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from flyweight.compressor.errors import ModelError
from flyweight.compressor.importer import checking, import_onnx

Make = Callable[..., Path]
Random = np.random.Generator
node = helper.make_node


def floats(random: Random, *shape: int) -> np.ndarray:
    return random.normal(size=shape).astype(np.float32)


def convnet(make_graph: Make, random: Random, batch: int | str) -> Path:
    return make_graph(
        [
            node("Conv", ["image", "stem.weight", "stem.bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"]),
            node("Relu", ["b"], ["c"]),
            node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Reshape", ["d", "shape"], ["e"]),
            node("Gemm", ["e", "head.weight", "head.bias"], ["logits"], transB=1),
        ],
        {"image": [batch, 3, 8, 8]},
        {
            "stem.weight": floats(random, 4, 3, 3, 3),
            "stem.bias": floats(random, 4),
            "bn.weight": floats(random, 4),
            "bn.bias": floats(random, 4),
            "bn.mean": floats(random, 4),
            "bn.var": np.abs(floats(random, 4)) + 0.5,
            "shape": np.array([-1 if batch == "batch" else batch, 16]),
            "head.weight": floats(random, 5, 16),
            "head.bias": floats(random, 5),
        },
        ["logits"],
    )


def test_weights_become_parameters_of_layers_with_their_names(make_graph: Make, random: Random) -> None:
    path = convnet(make_graph, random, "batch")
    module = import_onnx(path, [{"image": floats(random, rows, 3, 8, 8)} for rows in (2, 1, 5)])
    layers = dict(module.named_modules())
    assert isinstance(layers["stem"], nn.Conv2d)
    assert isinstance(layers["bn"], nn.BatchNorm2d)
    assert isinstance(layers["head"], nn.Linear)
    assert {name for name, _ in module.named_parameters()} == {
        "stem.weight",
        "stem.bias",
        "bn.weight",
        "bn.bias",
        "head.weight",
        "head.bias",
    }
    assert not module.training


def test_a_literal_batch_in_a_reshape_does_not_bind_the_module(make_graph: Make, random: Random) -> None:
    module = import_onnx(convnet(make_graph, random, 1), [{"image": floats(random, 1, 3, 8, 8)}])
    rows = torch.from_numpy(floats(random, 4, 3, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(module(rows)[2:3], module(rows[2:3]))


def test_gradients_reach_every_weight(make_graph: Make, random: Random) -> None:
    module = import_onnx(convnet(make_graph, random, "batch"), [{"image": floats(random, 2, 3, 8, 8)}])
    module(torch.from_numpy(floats(random, 4, 3, 8, 8))).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters()
    )


def test_weights_in_constant_nodes_are_weights(make_graph: Make, random: Random) -> None:
    weight, bias = floats(random, 3, 5), floats(random, 5)
    path = make_graph(
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
            node("Constant", [], ["b"], value=numpy_helper.from_array(bias)),
            node("MatMul", ["x", "w"], ["product"], name="/block/dense/MatMul"),
            node("Add", ["b", "product"], ["y"]),
        ],
        {"x": ["batch", 7, 3]},
        {},
        ["y"],
    )
    module = import_onnx(path, [{"x": floats(random, 2, 7, 3)}])
    layer = module.get_submodule("block.dense")
    assert isinstance(layer, nn.Linear)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight.T)
    np.testing.assert_array_equal(layer.bias.detach().numpy(), bias)


def test_a_product_that_is_an_output_itself_keeps_its_bias_apart(make_graph: Make, random: Random) -> None:
    nodes = [node("MatMul", ["x", "w"], ["product"]), node("Add", ["product", "b"], ["y"])]
    path = make_graph(
        nodes, {"x": ["batch", 3]}, {"w": floats(random, 3, 5), "b": floats(random, 5)}, ["y", "product"]
    )
    module = import_onnx(path, [{"x": floats(random, 2, 3)}])
    assert len(module(torch.zeros(1, 3))) == 2


def test_one_table_read_twice_is_one_embedding(make_graph: Make, random: Random) -> None:
    path = make_graph(
        [
            node("Gather", ["table", "ids"], ["first"]),
            node("Gather", ["table", "more"], ["second"]),
            node("Add", ["first", "second"], ["y"]),
        ],
        {"ids": ["batch", 3], "more": ["batch", 3]},
        {"table": floats(random, 11, 4)},
        ["y"],
        integers=True,
    )
    feed = {name: random.integers(0, 11, (2, 3)) for name in ("ids", "more")}
    module = import_onnx(path, [feed])
    assert [type(layer) for layer in module.children()] == [nn.Embedding]


def layer_norm_nodes() -> list[onnx.NodeProto]:
    return [
        node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        node("Sub", ["x", "mean"], ["centred"]),
        node("Pow", ["centred", "two"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[-1]),
        node("Add", ["variance", "epsilon"], ["safe"]),
        node("Sqrt", ["safe"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["unit"]),
        node("Mul", ["unit", "norm.weight"], ["scaled"]),
        node("Add", ["scaled", "norm.bias"], ["y"]),
    ]


def test_layer_normalisation_in_nine_operators_is_one_layer(make_graph: Make, random: Random) -> None:
    weights = {"two": np.float32(2), "epsilon": np.float32(1e-5)}
    weights |= {"norm.weight": floats(random, 6), "norm.bias": floats(random, 6)}
    path = make_graph(layer_norm_nodes(), {"x": ["batch", 6]}, weights, ["y"])
    module = import_onnx(path, [{"x": floats(random, 3, 6)}])
    assert [(name, type(layer)) for name, layer in module.named_children()] == [("norm", nn.LayerNorm)]
    # By hand: the row 0..5 has mean 2.5 and variance 35 / 12.
    with torch.no_grad():
        found = module(torch.arange(6.0).unsqueeze(0)).numpy()[0]
    unit = (np.arange(6) - 2.5) / np.sqrt(35 / 12 + 1e-5)
    np.testing.assert_allclose(
        found, unit * weights["norm.weight"] + weights["norm.bias"], rtol=1e-5, atol=1e-6
    )


def test_another_exponent_is_no_layer_normalisation(make_graph: Make, random: Random) -> None:
    weights = {"two": np.float32(4), "epsilon": np.float32(1e-5)}
    weights |= {"norm.weight": floats(random, 6), "norm.bias": floats(random, 6)}
    path = make_graph(layer_norm_nodes(), {"x": ["batch", 6]}, weights, ["y"])
    module = import_onnx(path, [{"x": floats(random, 3, 6)}])
    assert not any(isinstance(layer, nn.LayerNorm) for layer in module.modules())


def attention_shapes(make_graph: Make) -> Path:
    """Write x.view(x.size(0), x.size(1), 3, -1), transposed, as TorchScript's exporter does."""
    return make_graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "zero"], ["batch_size"]),
            node("Gather", ["shape", "one"], ["length"]),
            node("Unsqueeze", ["batch_size", "axes"], ["b1"]),
            node("Unsqueeze", ["length", "axes"], ["l1"]),
            node("Concat", ["b1", "l1", "three", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["split"]),
            node("Transpose", ["split"], ["heads"], perm=[0, 2, 1, 3]),
            node("Range", ["zero", "length", "one"], ["places"]),
            node("Cast", ["places"], ["numbers"], to=1),
            node("Unsqueeze", ["numbers", "axes_1"], ["column"]),
            node("Add", ["heads", "column"], ["y"]),
        ],
        {"x": ["batch", "length", 12]},
        {
            "zero": np.int64(0),
            "one": np.int64(1),
            "axes": np.array([0]),
            "axes_1": np.array([1]),
            "three": np.array([3]),
            "rest": np.array([-1]),
        },
        ["y"],
    )


def test_arithmetic_on_shapes_follows_new_lengths(make_graph: Make, random: Random) -> None:
    feeds = [{"x": floats(random, *shape)} for shape in ((1, 4, 12), (3, 7, 12), (2, 1, 12))]
    module = import_onnx(attention_shapes(make_graph), feeds)
    assert not list(module.buffers())


def test_arithmetic_on_shapes_stays_symbolic_when_traced_again(make_graph: Make, random: Random) -> None:
    module = import_onnx(attention_shapes(make_graph), [{"x": floats(random, 2, 5, 12)}])
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.zeros(2, 5, 12),), dynamic_shapes=({0: free, 1: free},))
    x = torch.from_numpy(floats(random, 4, 9, 12))
    torch.testing.assert_close(program.module()(x), module(x))


def test_a_constant_condition_takes_its_branch(make_graph: Make, random: Random) -> None:
    def branch(name: str, kind: str) -> onnx.GraphProto:
        return helper.make_graph([node(kind, ["x"], [name])], name, [], [onnx.ValueInfoProto(name=name)])

    path = make_graph(
        [node("If", ["yes"], ["y"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Abs"))],
        {"x": ["batch", 3]},
        {"yes": np.array(True)},
        ["y"],
    )
    module = import_onnx(path, [{"x": floats(random, 2, 3)}])
    assert module(torch.ones(1, 3)).tolist() == [[-1.0, -1.0, -1.0]]


def test_unknown_operators_are_all_named(make_graph: Make) -> None:
    nodes = [node("Multinomial", ["x"], ["a"]), node("Bernoulli", ["a"], ["y"])]
    path = make_graph(nodes, {"x": [1, 3]}, {}, ["y"])
    with pytest.raises(ModelError, match="uses Bernoulli and Multinomial, which the importer does not know"):
        import_onnx(path, [{"x": np.zeros((1, 3), np.float32)}])


def test_a_quantized_model_is_refused_as_such(make_graph: Make) -> None:
    weights = {"scale": np.float32(0.1), "zero": np.uint8(0)}
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    with pytest.raises(ModelError, match=r"already quantized \(it uses QuantizeLinear\)"):
        import_onnx(make_graph(nodes, {"x": [1, 3]}, weights, ["y"]), [{"x": np.zeros((1, 3), np.float32)}])


def test_weights_stored_as_integers_are_read(make_graph: Make, random: Random) -> None:
    weights = {
        "w": random.integers(-127, 128, (3, 5)).astype(np.int8),
        "scale": np.abs(floats(random, 5)) + 0.1,
        "zero": np.zeros(5, np.int8),
    }
    nodes = [
        node("DequantizeLinear", ["w", "scale", "zero"], ["dense"], axis=1),
        node("MatMul", ["x", "dense"], ["y"]),
    ]
    path = make_graph(nodes, {"x": ["batch", 3]}, weights, ["y"])
    module = import_onnx(path, [{"x": floats(random, 2, 3)}])
    assert [type(layer) for layer in module.children()] == [nn.Linear]


def test_a_condition_on_the_input_is_refused(make_graph: Make) -> None:
    branches = [
        helper.make_graph([node("Neg", ["x"], [name])], name, [], [onnx.ValueInfoProto(name=name)])
        for name in "ab"
    ]
    nodes = [
        node("ReduceMax", ["x"], ["largest"], keepdims=0),
        node("Cast", ["largest"], ["yes"], to=9),
        node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    with pytest.raises(ModelError, match="decides by the input"):
        import_onnx(make_graph(nodes, {"x": [2, 3]}, {}, ["y"]), [{"x": np.zeros((2, 3), np.float32)}])


def test_an_operator_torch_cannot_run_is_named(make_graph: Make) -> None:
    path = make_graph(
        [node("MatMul", ["x", "w"], ["y"], name="wrong")], {"x": [2, 3]}, {"w": np.ones(2)}, ["y"]
    )
    with pytest.raises(ModelError, match=r"'wrong' \(MatMul\)"):
        import_onnx(path, [{"x": np.zeros((2, 3), np.float32)}])


def test_an_answer_that_differs_is_told_with_its_size(
    make_graph: Make, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match=r"output 'logits' differs from ONNX Runtime's by \d\.\de-\d\d"):
        import_onnx(convnet(make_graph, random, "batch"), [{"image": floats(random, 1, 3, 8, 8)}])


def test_differences_are_relative_to_the_range() -> None:
    wanted = np.array([100.0, -np.inf], np.float32)
    assert checking.relative_difference(wanted, np.array([101.0, -np.inf], np.float32)) == pytest.approx(0.01)
    assert checking.relative_difference(wanted, np.array([100.0, 0.0], np.float32)) == float("inf")
    assert checking.relative_difference(wanted, np.array([np.nan, -np.inf], np.float32)) == float("inf")
