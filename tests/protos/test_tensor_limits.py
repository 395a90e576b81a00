"""What is too much is refused by name before it is copied."""

import tracemalloc

import numpy as np
import pytest

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferTensorContents, ModelInferRequest
from flyweight.protos.tensors import TensorLimits, decode_tensors
from flyweight.protos.tensors.strings import join_bytes

Input = ModelInferRequest.InferInputTensor


def test_without_values_nothing_is_bounded() -> None:
    data = bytes(1 << 20)
    assert decode_tensors([Input(name="x", datatype="INT8", shape=[1 << 20])], [data])["x"].size == 1 << 20


def test_a_tensor_has_so_many_bytes_at_most() -> None:
    limits = TensorLimits(tensor_bytes=8)
    tensor = Input(name="x", datatype="FP32", shape=[3])
    with pytest.raises(TensorError, match="'x' has 12 bytes, and 8 are the most"):
        decode_tensors([tensor], [bytes(12)], limits)
    tensor.contents.fp32_contents.extend([1, 2, 3])
    with pytest.raises(TensorError, match="'x' has 12 bytes, and 8 are the most"):
        decode_tensors([tensor], [], limits)
    assert decode_tensors([Input(name="x", datatype="FP32", shape=[2])], [bytes(8)], limits)["x"].size == 2


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (TensorLimits(strings=1), "'x' of datatype BYTES has 2 elements, and 1 are the most"),
        (TensorLimits(string_bytes=2), "'x' of datatype BYTES has an element of 3 bytes, and 2 are"),
    ],
)
def test_so_many_strings_of_such_a_length(limits: TensorLimits, complaint: str, is_raw: bool) -> None:
    words = [b"abc", b""]
    tensor = Input(name="x", datatype="BYTES", shape=[2])
    if not is_raw:
        tensor.contents.CopyFrom(InferTensorContents(bytes_contents=words))
    raw = [join_bytes(np.array(words, object))] if is_raw else []
    with pytest.raises(TensorError, match=complaint):
        decode_tensors([tensor], raw, limits)
    assert decode_tensors([tensor], raw, TensorLimits(strings=2, string_bytes=3))["x"].tolist() == words


def test_a_message_has_so_many_tensors() -> None:
    tensors = [Input(name=str(index), datatype="INT8", shape=[0]) for index in range(3)]
    with pytest.raises(TensorError, match="There are 3 tensors, and 2 are the most"):
        decode_tensors(tensors, [b""] * 3, TensorLimits(tensors=2))


@pytest.mark.parametrize("datatype", ["FP64", "BOOL", "BF16", "BYTES"])
@pytest.mark.parametrize("shape", [[2**40], [2**62, 2**62], [2**31, 2**31, 2**31]])
def test_a_shape_costs_nothing(datatype: str, shape: list[int]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TensorError, match="'x'"):
            decode_tensors([Input(name="x", datatype=datatype, shape=shape)], [bytes(64)])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
