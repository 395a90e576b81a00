"""What every run would compute again is computed once: bit for bit the same answers."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from flyweight.compressor.passes.layout.folding import fold_known

WIDTH, WORDS, TYPES = 4, 6, 2


class Embedded:
    """An embedding: words, of one type each, looked up and added; `source` gives the types' indices."""

    def __init__(self, types: str = "constant", other: str = "table") -> None:
        random = np.random.default_rng(0)
        self.stored = {
            "words": random.standard_normal((WORDS, WIDTH)).astype(np.float32),
            "types": random.standard_normal((TYPES, WIDTH)).astype(np.float32),
            "ones": np.ones((1, 512), np.int64),
            "last": np.array([1]),
        }
        lookup = "types" if other == "types" else "words"
        self.nodes = [
            helper.make_node("Shape", ["ids"], ["shape"]),
            helper.make_node("Shape", ["ids"], ["length"], start=1, end=2),
            helper.make_node("Slice", ["ones", "first", "length", "last"], ["some"]),
            helper.make_node("Expand", ["some", "shape"], ["same"]),
            helper.make_node("Gather", [lookup, "ids"], ["word"]),
            helper.make_node("Gather", ["types", "ids" if types == "given" else "same"], ["type"]),
            helper.make_node("Add", ["type", "word"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["y"]),
        ]
        self.stored["first"] = np.array([0])

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "embedded",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "m"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", *outputs)],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return declared(shape_inference.infer_shapes(model, data_prop=True))


def declared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Say what exporters say and inference does not: that the types have the shape of the words."""
    known = {value.name for value in model.graph.value_info}
    for name in {"same"} - known:
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "m"]))
    for value in model.graph.value_info:
        if value.name in {"type", "word", "sum"}:
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", "m", WIDTH]))
    return model


def answers(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture
def ids() -> dict[str, Any]:
    return {"ids": np.random.default_rng(1).integers(0, TYPES, (2, 3))}


def test_a_row_that_is_always_the_same_goes_into_the_table_it_is_added_to(ids) -> None:
    model = Embedded().model()
    before = answers(model, ids)
    assert fold_known(model) == 1
    assert operators(model) == {"Gather": 1, "Relu": 1}
    assert [tensor.name for tensor in model.graph.initializer] == ["words"]
    np.testing.assert_array_equal(answers(model, ids), before)


@pytest.mark.parametrize("outputs", [("word",), ("words",)])
def test_a_table_that_others_see_keeps_its_rows(ids, outputs: tuple[str, ...]) -> None:
    embedded = Embedded()
    if outputs == ("words",):
        embedded.nodes.append(helper.make_node("Identity", ["words"], ["table"]))
        outputs = ("table",)
    model = embedded.model(*outputs)
    before = answers(model, ids)
    assert fold_known(model) == 1
    assert operators(model)["Add"] == 1
    assert operators(model)["Gather"] == 1
    for one, other in zip(answers(model, ids), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_of_one_table_are_not_added_to_that_table(ids) -> None:
    model = Embedded(other="types").model()
    before = answers(model, ids)
    fold_known(model)
    np.testing.assert_array_equal(answers(model, ids), before)


def test_rows_that_inputs_choose_stay(ids) -> None:
    model = Embedded(types="given").model()
    text = model.SerializeToString()
    assert fold_known(model) == 0
    assert model.SerializeToString() == text


def test_a_row_beyond_the_table_is_left_to_fail_where_it_did() -> None:
    embedded = Embedded()
    embedded.stored["ones"] = np.full((1, 512), TYPES)
    assert fold_known(embedded.model()) == 0


def test_a_sum_whose_shape_the_rows_decide_stays() -> None:
    """One word for many types: the sum is as wide as the types are."""
    embedded = Embedded()
    model = embedded.model()
    word = next(value for value in model.graph.value_info if value.name == "word")
    word.CopyFrom(helper.make_tensor_value_info("word", TensorProto.FLOAT, ["n", 1, WIDTH]))
    assert fold_known(model) == 0


def widened(operator: str, wide: str = "m") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["one", "shape"], ["wide"]),
        helper.make_node(operator, ["x", "wide"], ["y"], **({"axis": 0} if operator == "Concat" else {})),
    ]
    graph = helper.make_graph(
        nodes,
        "widened",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"]),
            helper.make_tensor_value_info("one", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        value_info=[helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["n", wide])],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("operator", "wide", "folded"), [("Div", "m", 1), ("Sub", "m", 1), ("Concat", "m", 0), ("Div", "k", 0)]
)
def test_widening_is_dropped_where_the_reader_broadcasts(operator: str, wide: str, folded: int) -> None:
    model = widened(operator, wide)
    x, one = np.arange(1, 7, dtype=np.float32).reshape(2, 3), np.full((2, 1), 3, np.float32)
    before = answers(model, {"x": x, "one": one})
    assert fold_known(model) == folded
    assert operators(model)["Expand"] == 1 - folded
    np.testing.assert_array_equal(answers(model, {"x": x, "one": one}), before)
