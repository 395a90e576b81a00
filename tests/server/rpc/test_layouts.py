"""Requests that were understood before, held against what the protobuf library makes of the same bytes."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import decode_tensors
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.layouts import Layouts
from flyweight.server.rpc.parameters import InferOptions

OPTIONS = InferOptions()
SIZES = {"UINT8": 1, "FP16": 2, "BF16": 2, "FP32": 4, "INT64": 8, "FP64": 8}


@dataclass(frozen=True)
class Asked:
    """A request; its tensors' bytes come of `seed`."""

    model: str = "m"
    version: str = ""
    request_id: str = ""
    user: str = ""
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = (("x", "FP32", (1, 3)),)
    outputs: tuple[str, ...] = ()
    seed: int = 0

    def message(self) -> ModelInferRequest:
        message = ModelInferRequest(model_name=self.model, model_version=self.version, id=self.request_id)
        if self.user:
            message.parameters["user"].string_param = self.user
        random = Random(self.seed)
        for name, datatype, shape in self.tensors:
            message.inputs.add(name=name, datatype=datatype, shape=shape)
            message.raw_input_contents.append(random.randbytes(SIZES[datatype] * int(np.prod(shape))))
        for name in self.outputs:
            message.outputs.add(name=name)
        return message

    def body(self) -> bytes:
        return self.message().SerializeToString()


NAMES = st.sampled_from(["", "m", "model", "ä"])
SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
TENSORS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(sorted(SIZES)), SHAPES),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each[0],
).map(tuple)
ASKED = st.builds(
    Asked,
    model=NAMES,
    version=NAMES,
    request_id=st.sampled_from(["", "1", "2", "ab"]),
    user=NAMES,
    tensors=TENSORS,
    outputs=st.lists(st.sampled_from("pq"), unique=True).map(tuple),
    seed=st.integers(0, 3),
)


def learnt(asked: Asked) -> Layouts:
    layouts = Layouts()
    message = asked.message()
    layouts.learn(asked.body(), message, OPTIONS, inputs_of(message))
    return layouts


def inputs_of(message: ModelInferRequest) -> dict[str, Any]:
    return decode_tensors(message.inputs, message.raw_input_contents, widen=False)


def hold_against_library(layouts: Layouts, body: bytes) -> bool:
    """Tell whether a request is known; what is known of it must be what the library reads."""
    known = layouts.find(body)
    if known is None:
        return False
    layout, request_id = known
    message = ModelInferRequest.FromString(body)
    inputs = inputs_of(message)
    found = layout.inputs_of(body)
    assert request_id == message.id
    assert list(found) == list(inputs)
    for name, array in inputs.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    rest = ModelInferRequest()
    rest.CopyFrom(layout.message)
    for each in (message, rest):
        each.ClearField("raw_input_contents")
        each.ClearField("id")
    assert rest == message
    return True


@given(ASKED, st.integers(0, 3), st.sampled_from(["", "1", "2", "ab"]))
def test_a_request_with_other_numbers_and_another_id_is_known(asked: Asked, seed: int, other: str) -> None:
    again = replace(asked, seed=seed, request_id=other)
    is_known = hold_against_library(learnt(asked), again.body())
    # An id of another length moves all that follows.
    assert is_known == (len(other) == len(asked.request_id))


@given(ASKED, ASKED)
def test_what_is_known_of_another_request_is_true(asked: Asked, other: Asked) -> None:
    hold_against_library(learnt(asked), other.body())


@given(ASKED, st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=3))
@example(Asked(request_id="ab"), [(3, 0x0A), (5, 0xFF)])
def test_what_is_known_of_garbled_bytes_is_true(asked: Asked, garbled: list[tuple[int, int]]) -> None:
    octets = bytearray(asked.body())
    for place, octet in garbled:
        octets[place % len(octets)] = octet
    hold_against_library(learnt(asked), bytes(octets))


def test_an_id_that_is_no_text_is_left_to_the_library() -> None:
    body = Asked(request_id="ab").body()
    assert learnt(Asked(request_id="ab")).find(body.replace(b"ab", b"\xff\xff")) is None


def test_large_requests_are_known_where_they_lie() -> None:
    asked = Asked(tensors=(("x", "FP32", (30_000,)), ("y", "UINT8", (7,))))
    layouts = learnt(asked)
    for before in range(8):
        place = np.frombuffer(bytes(before) + replace(asked, seed=before).body(), np.uint8).data[before:]
        known = layouts.find(place)
        assert known is not None
        arrays = known[0].inputs_of(place)
        assert all(array.ctypes.data % array.itemsize == 0 for array in arrays.values())
        assert hold_against_library(layouts, bytes(place))


def typed() -> ModelInferRequest:
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    return message


def with_raw(datatype: str, raw: bytes) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=datatype, shape=[1])
    message.raw_input_contents.append(raw)
    return message


def in_region() -> ModelInferRequest:
    message = with_raw("UINT8", b"1")
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return message


def classified() -> ModelInferRequest:
    message = with_raw("UINT8", b"1")
    message.outputs.add(name="y").parameters["classification"].int64_param = 3
    return message


def with_much_to_say() -> ModelInferRequest:
    message = with_raw("UINT8", b"1")
    message.parameters["story"].string_param = "x" * 5000
    return message


@pytest.mark.parametrize(
    "message",
    [typed(), with_raw("BYTES", b"\1\0\0\0a"), with_raw("BOOL", b"\1"), in_region(), classified()],
    ids=["typed", "strings", "truths", "shared memory", "classes"],
)
def test_what_has_to_be_looked_at_each_time_is_not_kept(message: ModelInferRequest) -> None:
    layouts, body = Layouts(), message.SerializeToString()
    inputs = {} if message.inputs[0].parameters else inputs_of(message)
    layouts.learn(body, message, OPTIONS, inputs)
    assert layouts.find(body) is None


def test_long_requests_are_not_kept() -> None:
    layouts, message = Layouts(), with_much_to_say()
    layouts.learn(message.SerializeToString(), message, OPTIONS, inputs_of(message))
    assert layouts.find(message.SerializeToString()) is None


def test_requests_that_are_never_met_again_are_not_kept_for_ever() -> None:
    layouts = Layouts()
    kept = 0
    for number in range(2000):
        asked = Asked(user=f"user {number}")
        layouts.learn(asked.body(), asked.message(), OPTIONS, inputs_of(asked.message()))
        kept += layouts.find(asked.body()) is not None
    # Each was found once, which is less than keeping it is worth.
    assert 256 <= kept < 600
    assert sum(map(len, layouts._by_length.values())) <= 4 * 256


def test_a_known_request_is_answered_as_the_first_was(bench: Any) -> None:
    def answer(asked: Asked) -> ModelInferResponse:
        return ModelInferResponse.FromString(bench.handlers["ModelInfer"](asked.body(), Call()))

    asked = Asked("tiny", "int8", "q-1", tensors=(("x", "FP32", (2, 4)),))
    first = answer(asked)
    for seed, request_id in ((0, "q-1"), (1, "q-2"), (0, "q-3")):
        again = answer(replace(asked, seed=seed, request_id=request_id))
        assert again.id == request_id
        again.id = first.id
        if seed == 0:
            assert again == first
    assert answer(replace(asked, version="baseline")).model_version == "baseline"


def test_a_known_request_is_refused_as_the_first_was(bench: Any) -> None:
    asked = Asked("tiny", tensors=(("x", "FP32", (2, 5)),))
    sentences = {bench.refusal(replace(asked, seed=seed).message()).sentence for seed in range(3)}
    assert len(sentences) == 1
