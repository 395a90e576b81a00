"""Tensors that contradict themselves are refused by name, and by nothing but TensorError."""

import re
from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferTensorContents, ModelInferRequest
from flyweight.protos.tensors import DATATYPES, decode_tensors

Input = ModelInferRequest.InferInputTensor
Contents = InferTensorContents


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "complaint"),
    [
        ("FP32", [2], bytes(4), "'x' of datatype FP32 and shape [2] takes 8 bytes, and 4 were sent"),
        ("FP32", [], b"", "takes 4 bytes, and 0 were sent"),
        ("INT8", [0], b"a", "takes 0 bytes, and 1 were sent"),
        ("BF16", [1], bytes(4), "takes 2 bytes, and 4 were sent"),
        ("BOOL", [2], b"\0", "takes 2 bytes, and 1 were sent"),
        ("BOOL", [2], b"\0\2", "'x' of datatype BOOL has a byte 2"),
        ("FP32", [-1], bytes(4), "'x' has shape [-1], and a tensor that is sent has no negative lengths"),
        # Two negative lengths multiply to the right number of elements.
        ("FP32", [-1, -1], bytes(4), "no negative lengths"),
        ("INT8", [2**32, 2**32], b"", "takes 18446744073709551616 bytes"),
        (
            "INT8",
            [0, 2**62, 2**62],
            b"",
            "'x' has shape [0, 4611686018427387904, 4611686018427387904], which",
        ),
        ("INT8", [1] * 33, b"a", "'x' has 33 axes, and 32 are the most"),
        (
            "FP8",
            [1],
            b"a",
            "'x' has datatype 'FP8', which the protocol does not have; use one of BF16, BOOL,",
        ),
        ("", [1], b"a", "datatype ''"),
        ("BYTES", [1], b"\1\0\0", "does not fit its 3 bytes"),
        ("BYTES", [1], b"\2\0\0\0a", "does not fit its 5 bytes"),
        ("BYTES", [1], b"\1\0\0\0ab", "does not fit its 6 bytes"),
        ("BYTES", [2], b"\4\0\0\0abcd", "does not fit its 8 bytes"),
        ("BYTES", [2], b"\1\0\0\0abcd", "does not fit its 8 bytes"),
        ("BYTES", [2**40], b"\0\0\0\0", "does not fit its 4 bytes"),
    ],
)
def test_raw_contents_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], data: bytes, complaint: str
) -> None:
    with pytest.raises(TensorError, match=re.escape(complaint)):
        decode_tensors([Input(name="x", datatype=datatype, shape=shape)], [data])


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "complaint"),
    [
        ("FP32", [2], Contents(fp32_contents=[1]), "takes 2 elements, and 1 were sent in fp32_contents"),
        ("FP32", [1], Contents(), "takes 1 elements, and 0 were sent in fp32_contents and none as raw bytes"),
        ("FP32", [1], Contents(fp64_contents=[1]), "has fp64_contents; its contents belong in fp32_contents"),
        (
            "INT64",
            [1],
            Contents(int64_contents=[1], int_contents=[1]),
            "has int_contents; its contents belong",
        ),
        ("INT8", [1], Contents(int_contents=[128]), "'x' of datatype INT8 has a value 128; send -128 to 127"),
        ("UINT16", [1], Contents(uint_contents=[2**16]), "has a value 65536; send 0 to 65535"),
        ("FP16", [1], Contents(fp32_contents=[1]), "'x' of datatype FP16 has no raw contents"),
        ("BF16", [1], Contents(fp32_contents=[1]), "'x' of datatype BF16 has no raw contents"),
        ("INT32", [-1], Contents(int_contents=[1]), "no negative lengths"),
        ("INT32", [0, 2**62, 2**62], Contents(), "too large for an array"),
        (
            "TYPE_FP32",
            [1],
            Contents(fp32_contents=[1]),
            "datatype 'TYPE_FP32', which the protocol does not have",
        ),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], contents: InferTensorContents, complaint: str
) -> None:
    with pytest.raises(TensorError, match=re.escape(complaint)):
        decode_tensors([Input(name="x", datatype=datatype, shape=shape, contents=contents)], [])


def test_both_raw_and_typed_contents_are_refused() -> None:
    tensor = Input(name="x", datatype="INT8", shape=[1], contents=Contents(int_contents=[1]))
    with pytest.raises(TensorError, match="'x' has typed contents in a message with raw contents"):
        decode_tensors([tensor], [b"\1"])


def test_one_raw_and_one_typed_tensor_are_refused_by_the_typed_ones_name() -> None:
    tensor = Input(name="y", datatype="INT8", shape=[1], contents=Contents(int_contents=[1]))
    with pytest.raises(TensorError, match="'y' has typed contents"):
        decode_tensors([Input(name="x", datatype="INT8", shape=[1]), tensor], [b"\1"])


def test_a_missing_raw_entry_is_refused_by_name() -> None:
    tensors = [Input(name=name, datatype="INT8", shape=[1]) for name in "xy"]
    with pytest.raises(TensorError, match="1 raw contents for 2 tensors, so tensor 'y' has none"):
        decode_tensors(tensors, [b"\1"])


def test_a_superfluous_raw_entry_is_refused() -> None:
    with pytest.raises(TensorError, match="2 raw contents for 1 tensors, so some belong to none"):
        decode_tensors([Input(name="x", datatype="INT8", shape=[1])], [b"\1", b"\1"])


def test_a_name_that_comes_twice_is_refused() -> None:
    tensors = [Input(name="x", datatype="INT8", shape=[1])] * 2
    with pytest.raises(TensorError, match="'x' comes twice"):
        decode_tensors(tensors, [b"\1", b"\2"])


@given(
    st.sampled_from([*DATATYPES, "FP8"]),
    st.lists(st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.binary(max_size=64),
)
def test_garbled_raw_bytes_raise_nothing_else(datatype: str, shape: list[int], data: bytes) -> None:
    only_tensor_errors(
        ModelInferRequest(inputs=[Input(name="x", datatype=datatype, shape=shape)], raw_input_contents=[data])
    )


@given(st.binary(max_size=200))
def test_garbled_messages_raise_nothing_else(data: bytes) -> None:
    tensor = Input(name="x", datatype="BYTES", shape=[2])
    prefix = ModelInferRequest(inputs=[tensor]).SerializeToString()
    try:
        request = ModelInferRequest.FromString(prefix + data)
    except DecodeError:
        return
    only_tensor_errors(request)


def only_tensor_errors(request: ModelInferRequest) -> None:
    with suppress(TensorError):
        arrays = decode_tensors(request.inputs, request.raw_input_contents)
        assert len(arrays) == len(request.inputs)
        assert all(list(arrays[tensor.name].shape) == list(tensor.shape) for tensor in request.inputs)
