"""Whether rows mind each other, with real sessions of models that do and that do not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.server.errors import InvalidRequest
from flyweight.server.repository.completion import complete
from flyweight.server.runtime.fake import FAKE_SIGNATURE, FakeRuntime
from flyweight.server.runtime.independence import Verdict, measure_independence
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.seam import Array, SessionSettings, Signature, TensorSpec

FLOAT = TensorProto.FLOAT
ROWS = Signature(FAKE_SIGNATURE.inputs, FAKE_SIGNATURE.outputs, max_batch_rows=1024)


def weights(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def dynamic_int8() -> list[onnx.NodeProto]:
    """Return what onnxruntime's dynamic quantization makes of a MatMul: one scale for the whole batch."""
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "wq", "xz"], ["acc"]),
        helper.make_node("Cast", ["acc"], ["accf"], to=FLOAT),
        helper.make_node("Mul", ["accf", "xs"], ["y"]),
    ]


MODELS: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "dense": ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights("w", 4, 4)]),
    "softmax over a row": ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], []),
    "dynamic int8": (
        dynamic_int8(),
        [numpy_helper.from_array(np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "wq")],
    ),
    "softmax over the batch": ([helper.make_node("Softmax", ["x"], ["y"], axis=0)], []),
    "sum over the rows so far": (
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [numpy_helper.from_array(np.array(0, np.int64), "axis")],
    ),
    "the rows in another order": (
        [helper.make_node("Slice", ["x", "last", "first", "axes", "step"], ["y"])],
        [
            numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in (("last", -1), ("first", -100000), ("axes", 0), ("step", -1))
        ],
    ),
}


def measured(save_graph: Any, folder: Path, name: str) -> Verdict:
    nodes, initializers = MODELS[name]
    path = save_graph(
        folder / "model.onnx",
        nodes,
        [("x", FLOAT, ("n", 4))],
        [("y", FLOAT, ("m", 4))],
        initializers,
    )
    runtime = InlineFactory(cores=1).load(path, SessionSettings())
    _, signature = complete(None, "m", runtime.signature)
    return measure_independence(runtime, signature)


@pytest.mark.parametrize("name", ["dense", "softmax over a row"])
def test_rows_that_leave_each_other_alone_are_seen(save_graph: Any, tmp_path: Path, name: str) -> None:
    assert measured(save_graph, tmp_path, name).independent


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dynamic int8", "the output 'y' of a row changes with the other row"),
        ("softmax over the batch", "the output 'y' of a row changes with the other row"),
        ("sum over the rows so far", "the output 'y' of a row changes with the other row"),
        ("the rows in another order", "the output 'y' of a row changes with the other row"),
    ],
)
def test_rows_that_mind_each_other_are_seen(save_graph: Any, tmp_path: Path, name: str, reason: str) -> None:
    verdict = measured(save_graph, tmp_path, name)
    assert not verdict.independent
    assert reason in verdict.reason


def fake(function: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> FakeRuntime:
    return FakeRuntime(function=function)


def test_a_model_without_room_for_two_rows_is_not_run() -> None:
    runtime = FakeRuntime()
    assert not measure_independence(runtime, FAKE_SIGNATURE).independent
    assert runtime.runs == 0


def test_a_slow_model_is_run_once() -> None:
    runtime = FakeRuntime()
    ticks = iter(range(0, 100, 2))
    verdict = measure_independence(runtime, ROWS, monotonic=lambda: float(next(ticks)))
    assert "more than 1 s" in verdict.reason
    assert runtime.runs == 1


def test_a_model_that_takes_nothing_that_was_tried_is_left_alone() -> None:
    def refuse(_: Mapping[str, Array]) -> Mapping[str, Array]:
        raise InvalidRequest("no")

    assert measure_independence(fake(refuse), ROWS) == Verdict(
        independent=False, reason="no two rows could be made that it takes"
    )


def test_a_model_that_takes_one_row_only_is_seen() -> None:
    def one(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(inputs["x"]) > 1:
            raise InvalidRequest("one row, please")
        return {"y": inputs["x"]}

    assert measure_independence(fake(one), ROWS).reason == "it takes one row and refuses two"


def test_golden_rows_are_tried_first() -> None:
    """Rows of which the made-up ones tell nothing: only these two mind each other."""
    golden = {"x": np.array([[7, 0, 0, 0], [7, 1, 1, 1], [9, 9, 9, 9]], np.float32)}

    def odd(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"]
        return {"y": x + np.float32(len(x) > 1 and bool((x[:, 0] == 7).all()))}

    assert measure_independence(fake(odd), ROWS).independent
    assert not measure_independence(fake(odd), ROWS, golden).independent


def test_one_golden_row_is_no_pair() -> None:
    assert measure_independence(FakeRuntime(), ROWS, {"x": np.ones((1, 4), np.float32)}).independent


def test_words_of_a_dynamically_quantized_model_mind_each_other(save_graph: Any, tmp_path: Path) -> None:
    """An embedding, then a matrix of int8: the scale is of the words of the whole batch."""
    path = save_graph(
        tmp_path / "model.onnx",
        [helper.make_node("Gather", ["table", "ids"], ["x"]), *dynamic_int8()],
        [("ids", TensorProto.INT64, ("n", "length"))],
        [("y", FLOAT, ("n", "length", 4))],
        [
            weights("table", 200, 4),
            numpy_helper.from_array(np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "wq"),
        ],
    )
    runtime = InlineFactory(cores=1).load(path, SessionSettings())
    _, signature = complete(None, "m", runtime.signature)
    assert "changes with the other row" in measure_independence(runtime, signature).reason


@pytest.mark.parametrize("words", [2, 200])
def test_words_of_a_plain_model_do_not(save_graph: Any, tmp_path: Path, words: int) -> None:
    path = save_graph(
        tmp_path / "model.onnx",
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [("ids", TensorProto.INT32, ("n", 5))],
        [("y", FLOAT, ("n", 5, 4))],
        [weights("table", words, 4)],
    )
    runtime = InlineFactory(cores=1).load(path, SessionSettings())
    _, signature = complete(None, "m", runtime.signature)
    assert measure_independence(runtime, signature).independent


def test_whole_numbers_have_to_be_the_same() -> None:
    signature = Signature(
        (TensorSpec("x", "INT64", (-1, 2)),), (TensorSpec("y", "INT64", (-1, 2)),), max_batch_rows=8
    )
    same = fake(lambda inputs: {"y": inputs["x"] * 3})
    counting = fake(lambda inputs: {"y": inputs["x"] + len(inputs["x"])})
    assert measure_independence(same, signature).independent
    assert measure_independence(counting, signature).reason.endswith("(it is another value)")


@pytest.mark.parametrize(("factor", "independent"), [(1 + 1e-6, True), (1 + 1e-4, False)])
def test_the_last_digit_may_differ(factor: float, independent: bool) -> None:
    """A batch of two is summed in another order than one row."""
    runtime = fake(lambda inputs: {"y": (inputs["x"] * (factor if len(inputs["x"]) > 1 else 1)).astype("f4")})
    assert measure_independence(runtime, ROWS).independent is independent


def test_a_length_that_depends_on_the_company_is_seen() -> None:
    runtime = fake(lambda inputs: {"y": np.zeros((len(inputs["x"]), 2 * len(inputs["x"])), np.float32)})
    assert "its shape is [2] alone and [4] together" in measure_independence(runtime, ROWS).reason


def test_lengths_whose_product_is_huge_are_not_tried() -> None:
    """Sixteen terabytes, if it were made with a length of 224."""
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, -1, -1, -1, -1, -1)),),
        (TensorSpec("y", "FP32", (-1, -1)),),
        max_batch_rows=8,
    )

    def refuse(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        assert inputs["x"].size <= 8**5
        raise InvalidRequest("no")

    assert not measure_independence(fake(refuse), signature).independent


def test_one_row_of_all_is_seen() -> None:
    runtime = fake(lambda inputs: {"y": inputs["x"].mean(axis=0, keepdims=True)})
    assert "'y' does not have two rows for two rows" in measure_independence(runtime, ROWS).reason


def test_many_rows_of_one_are_seen() -> None:
    runtime = fake(lambda inputs: {"y": inputs["x"].reshape(-1, 1)})
    assert "'y' does not have one row for one row" in measure_independence(runtime, ROWS).reason


def test_numbers_that_vanish_in_company_are_seen() -> None:
    runtime = fake(lambda inputs: {"y": inputs["x"] * (np.float32("nan") if len(inputs["x"]) > 1 else 1)})
    assert "none together" in measure_independence(runtime, ROWS).reason


def test_another_length_is_tried_where_the_first_is_refused() -> None:
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),), max_batch_rows=8
    )

    def short(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if inputs["x"].shape[1] > 1:
            raise InvalidRequest("too long")
        return {"y": inputs["x"]}

    assert measure_independence(fake(short), signature).independent
