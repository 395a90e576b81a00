"""Calls as values: what would be sent, without sending it."""

import numpy as np
import pytest

from flyweight.client import InvalidRequest, calls
from flyweight.protos.inference import grpc_service_pb2 as pb


def request_of(inputs: object, **options: object) -> pb.ModelInferRequest:
    request = calls.predict("m", inputs, options).request  # type: ignore[arg-type]
    assert isinstance(request, pb.ModelInferRequest)
    return request


def test_an_array_goes_out_as_raw_little_endian_bytes() -> None:
    request = request_of({"x": np.array([[1, 2]], dtype=np.float32)})
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [("x", "FP32", [1, 2])]
    assert request.raw_input_contents[0] == b"\x00\x00\x80\x3f\x00\x00\x00\x40"


def test_big_endian_and_strided_arrays_go_out_as_their_values() -> None:
    plain = np.arange(6, dtype="<i4").reshape(2, 3)
    assert request_of({"x": plain.astype(">i4")}) == request_of({"x": plain})
    assert request_of({"x": plain.T}) == request_of({"x": plain.T.copy()})


def test_text_goes_out_as_utf8_bytes() -> None:
    as_text = request_of({"x": np.array(["é", "b"])})
    as_objects = request_of({"x": np.array(["é", b"b"], dtype=object)})
    assert as_text.inputs[0].datatype == "BYTES"
    assert as_text.raw_input_contents[0] == b"\x02\0\0\0\xc3\xa9\x01\0\0\0b"
    assert as_objects == as_text


def test_lists_are_taken_as_numpy_takes_them() -> None:
    assert request_of({"x": [[1.0, 2.0]]}).inputs[0].datatype == "FP64"


@pytest.mark.parametrize(
    "value",
    [np.array([1 + 2j]), np.array(["2026-01-01"], dtype="M8[D]"), np.array([object()]), [[1], [2, 3]]],
    ids=["complex", "date", "object", "ragged"],
)
def test_what_the_protocol_cannot_carry_is_refused_before_anything_is_sent(value: object) -> None:
    with pytest.raises(InvalidRequest, match="model 'm' was not sent"):
        request_of({"x": value})


@pytest.mark.parametrize(("key", "choice"), [("user-7", "string_param"), (7, "int64_param")])
def test_the_sticky_key_travels_as_a_request_parameter(key: str | int, choice: str) -> None:
    parameter = request_of({}, key=key).parameters["flyweight_key"]
    assert parameter.WhichOneof("parameter_choice") == choice
    assert getattr(parameter, choice) == key


def test_variant_outputs_id_and_parameters_land_in_their_fields() -> None:
    request = request_of(
        {}, variant="int8", outputs=["b", "a"], request_id="r1", parameters={"n": 1, "f": 0.5, "on": True}
    )
    assert (request.model_version, request.id) == ("int8", "r1")
    assert [output.name for output in request.outputs] == ["b", "a"]
    assert request.parameters["n"].int64_param == 1
    assert request.parameters["f"].double_param == 0.5
    assert request.parameters["on"].bool_param is True


def test_a_parameter_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="list"):
        request_of({}, parameters={"n": [1]})


def test_nothing_optional_is_sent_unless_asked_for() -> None:
    assert request_of({}, variant=None, key=None, outputs=None, parameters=None) == pb.ModelInferRequest(
        model_name="m"
    )
