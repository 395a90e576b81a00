"""Shapes of tensors that only onnxruntime's tool knows."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.symbolic_shapes import with_symbolic_shapes


def shapes(model) -> dict[str, list[int]]:
    values = (*model.graph.value_info, *model.graph.output)
    return {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}


def product(models, middle: str, domain: str):
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node(middle, ["a"], ["b"], domain=domain),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [models.weight("w", 3, 4)],
    )
    return load_graph(models.write(graph))


def test_its_own_operators_are_known(models) -> None:
    assert shapes(with_symbolic_shapes(product(models, "Gelu", "com.microsoft")))["b"] == [2, 4]


def test_an_unknown_operator_is_told_and_nothing_is_written(
    models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    model = product(models, "Sparkle", "my.company")
    with pytest.raises(ModelError):
        with_symbolic_shapes(model)
    assert not list(here.iterdir())
