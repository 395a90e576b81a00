"""Large requests, read against what the protobuf library makes of the same bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import decode_tensors
from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc.large import read_request

LARGE = 70_000


def request(*sizes: int, name: str = "m") -> ModelInferRequest:
    message = ModelInferRequest(model_name=name, id="7")
    message.parameters["priority"].int64_param = 3
    for number, size in enumerate(sizes):
        message.inputs.add(name=f"x{number}", datatype="UINT8", shape=[size])
        message.raw_input_contents.append(bytes([number + 1]) * size)
    return message


def as_library(body: bytes) -> tuple[ModelInferRequest, list[bytes]] | None:
    try:
        message = ModelInferRequest.FromString(body)
    except Exception:  # noqa: BLE001 - of whatever kind: it is refused
        return None
    raw = list(message.raw_input_contents)
    del message.raw_input_contents[:]
    return message, raw


def as_we(body: bytes) -> tuple[ModelInferRequest, list[bytes]] | None:
    try:
        message, found = read_request(body)
    except InvalidRequest:
        return None
    raw = [bytes(each) for each in found]
    del message.raw_input_contents[:]
    return message, raw


@pytest.mark.parametrize("sizes", [(), (1,), (LARGE,), (LARGE, 3, 0, LARGE), (0, LARGE)])
def test_it_reads_what_the_library_reads(sizes: tuple[int, ...]) -> None:
    body = request(*sizes).SerializeToString()
    assert as_we(body) == as_library(body)


def test_large_tensors_are_not_copied_where_they_lie_well() -> None:
    found: set[bool] = set()
    for length in range(8):
        _, raw = read_request(request(LARGE, name="m" * length).SerializeToString())
        array = np.frombuffer(raw[0], np.uint8)
        assert array.ctypes.data % 8 == 0, "whatever runs it may want its elements at multiples of their size"
        found.add(isinstance(raw[0], memoryview))
    assert found == {True, False}


def test_the_arrays_are_those_of_the_request() -> None:
    message = ModelInferRequest(model_name="m")
    x = np.random.default_rng(0).normal(size=(3, 10_000)).astype(np.float32)
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    message.raw_input_contents.append(x.tobytes())
    read, raw = read_request(message.SerializeToString())
    array = decode_tensors(read.inputs, raw)["x"]
    np.testing.assert_array_equal(array, x)
    assert not array.flags.writeable


@pytest.mark.parametrize(
    "tail",
    [
        b"\x3a",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x38\x05",
        b"\x3b\x3c",
        b"\x3d\x00\x00\x00\x00",
        b"\x3d\x00",
        b"\x39" + bytes(8),
        b"\xba\x80\x00\x01z",
        b"\x00\x00",
        b"\x80" * 12,
        b"\xff\xff\xff\xff\x0f\x00",
        b"\x0a\x01z" * 100,
        b"\x78\x01",
        b"\x7d\x01\x02\x03\x04",
        b"\x79" + bytes(8),
    ],
)
def test_what_follows_is_read_as_the_library_reads_it(tail: bytes) -> None:
    body = request(LARGE).SerializeToString() + tail
    assert as_we(body) == as_library(body)


def test_a_cut_request_is_refused_as_the_library_refuses_it() -> None:
    body = request(3, LARGE).SerializeToString()
    for end in (LARGE, len(body) - 1, len(body)):
        assert as_we(body[:end]) == as_library(body[:end])


@given(st.data())
def test_any_bytes_before_and_after_are_read_as_the_library_reads_them(data: Any) -> None:
    noise = st.binary(max_size=12)
    body = data.draw(noise) + request(5, LARGE).SerializeToString() + data.draw(noise)
    at = data.draw(st.integers(0, 60))
    body = body[:at] + data.draw(noise) + body[at:]
    assert as_we(body) == as_library(body)
