"""Arrays become messages and messages arrays, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from flyweight.protos.tensors import (
    DATATYPES,
    Array,
    datatype_of,
    decode_tensors,
    encode_inputs,
    encode_outputs,
)

NUMBERS = sorted(set(DATATYPES) - {"BF16", "BYTES"})
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def there_and_back(array: Array, datatypes: dict[str, str] | None = None) -> Array:
    request = ModelInferRequest()
    encode_inputs(request, {"x": array}, datatypes)
    received = ModelInferRequest.FromString(request.SerializeToString())
    return decode_tensors(received.inputs, received.raw_input_contents)["x"]


def typed(datatype: str, shape: list[int], contents: InferTensorContents) -> Array:
    tensor = ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape, contents=contents)
    return decode_tensors([tensor], [])["x"]


@given(st.data(), st.sampled_from(NUMBERS))
def test_numbers_of_every_type_and_shape_survive(data: st.DataObject, datatype: str) -> None:
    array = data.draw(hnp.arrays(DATATYPES[datatype], SHAPES))
    decoded = there_and_back(array)
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@given(hnp.arrays(np.object_, SHAPES, elements=st.binary(max_size=9)))
def test_byte_strings_of_every_shape_survive(array: Array) -> None:
    decoded = there_and_back(array)
    assert decoded.shape == array.shape
    assert decoded.tolist() == array.tolist()


@given(hnp.arrays(np.uint16, SHAPES))
def test_every_bfloat16_survives(bits: Array) -> None:
    array = (bits.astype(np.uint32) << 16).view(np.float32)
    decoded = there_and_back(array, {"x": "BF16"})
    np.testing.assert_array_equal(decoded, array)


def test_bfloat16_rounds_to_nearest_with_ties_to_even() -> None:
    # One bfloat16 step at 1 is 2**-7: half of it above 1 is a tie, and 1 is the even neighbour.
    step = 2.0**-7
    values = np.array([1 + step / 2, 1 + step * 1.5, 1 + step * 0.51, 3.4028235e38, -0.0, np.inf], np.float32)
    decoded = there_and_back(values, {"x": "BF16"})
    assert decoded.tolist() == [1.0, 1 + 2 * step, 1 + step, np.inf, -0.0, np.inf]


def test_a_nan_whose_payload_is_lost_stays_nan() -> None:
    array = np.array([0x7F80_0001, 0xFFFF_FFFF], np.uint32).view(np.float32)
    assert np.isnan(there_and_back(array, {"x": "BF16"})).all()


def test_a_scalar_has_an_empty_shape() -> None:
    decoded = there_and_back(np.array(2.5, np.float32))
    assert decoded.shape == ()
    assert decoded == 2.5


def test_raw_bytes_are_little_endian_and_row_major() -> None:
    request = ModelInferRequest()
    encode_inputs(request, {"x": np.array([[1, 2], [3, 4]], ">i2").T})
    assert request.inputs[0].datatype == "INT16"
    assert request.raw_input_contents[0] == bytes([1, 0, 3, 0, 2, 0, 4, 0])


def test_each_element_of_bytes_follows_its_length() -> None:
    request = ModelInferRequest()
    encode_inputs(request, {"x": np.array(["hé", b"", b"a\x00"], object)})
    assert request.inputs[0].datatype == "BYTES"
    assert request.raw_input_contents[0] == b"\x03\0\0\0h\xc3\xa9" + b"\0\0\0\0" + b"\x02\0\0\0a\0"


def test_arrays_of_text_travel_as_bytes() -> None:
    assert there_and_back(np.array([["a"], ["bc"]])).tolist() == [[b"a"], [b"bc"]]
    assert there_and_back(np.array([b"a", b"bc"])).tolist() == [b"a", b"bc"]


def test_raw_numbers_are_views_of_the_bytes_received() -> None:
    data = bytearray(np.arange(3, dtype=np.float32).tobytes())
    tensor = ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[3])
    decoded = decode_tensors([tensor], [memoryview(data)])["x"]
    data[:4] = np.float32(7).tobytes()
    assert decoded.tolist() == [7, 1, 2]


def test_outputs_keep_their_order_and_names() -> None:
    response = ModelInferResponse()
    encode_outputs(response, {"b": np.zeros((1, 2), np.int64), "a": np.array([True])})
    assert [(output.name, output.datatype, list(output.shape)) for output in response.outputs] == [
        ("b", "INT64", [1, 2]),
        ("a", "BOOL", [1]),
    ]
    assert list(decode_tensors(response.outputs, response.raw_output_contents)) == ["b", "a"]


@pytest.mark.parametrize(
    ("datatype", "contents", "expected"),
    [
        ("BOOL", InferTensorContents(bool_contents=[True, False]), [True, False]),
        ("INT8", InferTensorContents(int_contents=[-128, 127]), [-128, 127]),
        ("INT16", InferTensorContents(int_contents=[-(2**15), 2**15 - 1]), [-(2**15), 2**15 - 1]),
        ("INT32", InferTensorContents(int_contents=[-(2**31), 2**31 - 1]), [-(2**31), 2**31 - 1]),
        ("INT64", InferTensorContents(int64_contents=[-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        ("UINT8", InferTensorContents(uint_contents=[0, 255]), [0, 255]),
        ("UINT16", InferTensorContents(uint_contents=[0, 2**16 - 1]), [0, 2**16 - 1]),
        ("UINT32", InferTensorContents(uint_contents=[0, 2**32 - 1]), [0, 2**32 - 1]),
        ("UINT64", InferTensorContents(uint64_contents=[0, 2**64 - 1]), [0, 2**64 - 1]),
        ("FP32", InferTensorContents(fp32_contents=[0.5, -1.25]), [0.5, -1.25]),
        ("FP64", InferTensorContents(fp64_contents=[0.1, 1e300]), [0.1, 1e300]),
        ("BYTES", InferTensorContents(bytes_contents=[b"", b"\xff"]), [b"", b"\xff"]),
    ],
)
def test_typed_contents_are_read(
    datatype: str, contents: InferTensorContents, expected: list[object]
) -> None:
    decoded = typed(datatype, [1, 2], contents)
    assert decoded.dtype == DATATYPES[datatype]
    assert decoded.tolist() == [expected]


def test_typed_scalars_and_empty_tensors_are_read() -> None:
    assert typed("FP32", [], InferTensorContents(fp32_contents=[1.5])) == 1.5
    assert typed("INT64", [0, 3], InferTensorContents()).shape == (0, 3)


def test_a_message_without_tensors_has_none() -> None:
    assert decode_tensors([], []) == {}


@pytest.mark.parametrize("dtype", [np.complex64, "datetime64[s]", [("a", "i4")], np.longdouble])
def test_arrays_without_a_datatype_are_refused(dtype: str) -> None:
    array = np.zeros(1, dtype)
    with pytest.raises(TensorError, match="no datatype in the protocol"):
        datatype_of(array)
    with pytest.raises(TensorError, match="'scores'"):
        encode_inputs(ModelInferRequest(), {"scores": array})


def test_objects_that_are_no_text_are_refused() -> None:
    with pytest.raises(TensorError, match=r"'words'.*not int"):
        encode_inputs(ModelInferRequest(), {"words": np.array([1], object)})


def test_no_array_is_converted_silently() -> None:
    with pytest.raises(TensorError, match="'x': an array of int64 is not FP32; convert it first"):
        encode_inputs(ModelInferRequest(), {"x": np.zeros(1, np.int64)}, {"x": "FP32"})
