"""Dynamic int8 on a transformer: written as kernels like it, and no operator mistaken for another."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.layout.fuse import FuseGraph
from flyweight.compressor.passes.quantize import DynamicInt8
from flyweight.compressor.sessions import Session, SessionSettings


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_attention_is_fused_and_products_are_integers(block, inputs, context_of) -> None:
    path, feed = block(), inputs()
    result = DynamicInt8()(Model(path=path), context_of(DataSet(feed)))
    quantized = result.model.onnx_path()
    found = operators(quantized)
    assert (found["Attention"], found["MatMulInteger"], found["MatMul"], found["Sum"]) == (1, 5, 0, 2)
    assert result.notes[0] == "1 attentions fused into one operator each."
    before, after = (Session(p, SessionSettings()).run(feed)["y"] for p in (path, quantized))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999


def test_fusing_can_be_left_out(block, inputs, context_of) -> None:
    result = DynamicInt8(fuse=False)(Model(path=block()), context_of(DataSet(inputs())))
    assert operators(result.model.onnx_path())["Attention"] == 0


def test_the_operator_attention_is_not_taken_for_onnxruntimes_own_of_that_name(
    block, inputs, context_of
) -> None:
    """The quantizer of onnxruntime goes by the name alone, and would write a QAttention that cannot load."""
    feed = inputs()
    context = context_of(DataSet(feed))
    fused = FuseGraph()(Model(path=block()), context).model
    quantized = DynamicInt8()(fused, context).model.onnx_path()
    assert operators(quantized)["QAttention"] == 0
    assert Session(quantized, SessionSettings()).run(feed)["y"].shape == (3, 5, 8)


def test_a_fusion_that_changes_answers_is_not_used(block, inputs, context_of, monkeypatch) -> None:
    def differ(*_: object) -> float:
        raise PassError("The rewritten graph's answers differ by 1e+00 of their range; it is not used.")

    monkeypatch.setattr("flyweight.compressor.passes.quantize.dynamic_int8.check_same_answers", differ)
    result = DynamicInt8()(Model(path=block()), context_of(DataSet(inputs())))
    assert operators(result.model.onnx_path())["Attention"] == 0
    assert result.notes[0].endswith("it is not used.")


@pytest.mark.parametrize("excluded", ["MatMul", "matmul0"])
def test_what_is_excluded_stays_in_floating_point(excluded: str, block, inputs, context_of) -> None:
    path = block()
    step = DynamicInt8(exclude=(excluded,), fuse=False)
    if excluded == "MatMul":
        with pytest.raises(PassError, match="nothing was quantized"):
            step(Model(path=path), context_of(DataSet(inputs())))
        return
    first = next(node for node in onnx.load(path).graph.node if node.op_type == "MatMul")
    step = DynamicInt8(exclude=(first.name,), fuse=False)
    result = step(Model(path=path), context_of(DataSet(inputs())))
    # Two products of activations, which have no weight to store, and the excluded one.
    assert operators(result.model.onnx_path())["MatMul"] == 3
