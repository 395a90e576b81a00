"""What foreign tools say reaches the reader without places in their source code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.messages import first_line, in_one_line, plain
from flyweight.compressor.sessions import Session, SessionSettings


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Fail: [ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:No graph.", "No graph."),
        (
            (
                "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. "
                "Name:'mm' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch"
            ),
            "at the MatMul node 'mm': MatMul dimension mismatch",
        ),
        (
            (
                "Non-zero status code returned while running If node. Name:'' Status Message: "
                "Non-zero status code returned while running Add node. Name:'a' Status Message: bad"
            ),
            "at the If node: at the Add node 'a': bad",
        ),
        (
            (
                "/onnxruntime_src/core/squeeze.h:53 static onnxruntime::Shape onnxruntime::Base::Compute("
                "const std::function<void(int)>&, bool) const shape[i] == 1 was false. Dimension 1 is 3."
            ),
            "Dimension 1 is 3.",
        ),
        (
            (
                "/onnxruntime_src/core/gather.cc:150 void onnxruntime::impl(const Tensor*, int64_t) "
                "[with Tin = long int; int64_t = long int] Out of range"
            ),
            "Out of range",
        ),
        (
            "/onnxruntime_src/core/a.cc:1 onnxruntime::f(int)::<lambda(const X&)> Cannot parse",
            "Cannot parse",
        ),
        ("utils.cc:461 Validate External data (w) are missing", "External data (w) are missing"),
        (
            "/github/onnx/version_converter/Base.h:67: adapter_lookup: Assertion `false` failed: No Up",
            "No Up",
        ),
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. no memory", "err == 0. no memory"),
        ('Error: "/home/me/net.h:5/w.bin" is missing', 'Error: "/home/me/net.h:5/w.bin" is missing'),
        ("/x/a.cc:1 void f(int unclosed", "/x/a.cc:1 void f(int unclosed"),
    ],
)
def test_places_in_foreign_source_code_are_left_out(said: str, told: str) -> None:
    assert plain(said) == told


def test_what_is_long_is_cut_after_the_places_are_left_out() -> None:
    place = f"/src/a.cc:1 void onnxruntime::f({'int, ' * 100}int) "
    assert in_one_line(RuntimeError(place + "the reason.\nStack trace: ...")) == "RuntimeError: the reason"
    assert first_line(RuntimeError("x" * 400)) == "x" * 299 + "…"
    assert in_one_line(KeyError()) == first_line(KeyError()) == "KeyError"


def test_the_reason_of_a_foreign_failure_is_plain() -> None:
    def fail() -> None:
        raise RuntimeError("/src/a.cc:1 void onnxruntime::f(int) x > 0 was false. too small")

    with pytest.raises(ModelError) as caught:
        run_foreign(fail, ModelError)
    assert str(caught.value) == "RuntimeError: too small"


@pytest.mark.parametrize(
    ("operator", "feed", "reason"),
    [
        ("Reshape", {"a": np.zeros((2, 3), "f"), "b": np.array([4, 4])}, "cannot be reshaped"),
        ("Squeeze", {"a": np.zeros((4, 3), "f"), "b": np.array([1])}, "must be 1 instead of 3"),
        ("Gather", {"a": np.zeros((4, 3), "f"), "b": np.array([9])}, "out of data bounds"),
    ],
)
def test_a_failing_run_says_which_node_and_why(
    operator: str, feed: Mapping[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"], name="it")],
        "one",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["x", "y"]),
            helper.make_tensor_value_info("b", TensorProto.INT64, ["k"]),
        ],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(ModelError, match=f"at the {operator} node 'it': .*{reason}") as caught:
        Session(path, SessionSettings()).run(feed)
    assert "onnxruntime_src" not in str(caught.value)
    assert "::" not in str(caught.value)
