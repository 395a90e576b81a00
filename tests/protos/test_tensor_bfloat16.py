"""bfloat16 is exact where it can be, rounds to nearest where it cannot, and passes for nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import BFLOAT16, Array, datatype_of, decode_tensors, encode_inputs
from flyweight.protos.tensors.bfloat16 import narrow_to_bfloat16, widen_bfloat16

ALL = np.arange(2**16, dtype="<u2").view(BFLOAT16)
FINITE = np.sort(np.unique(widen_bfloat16(ALL)[np.isfinite(widen_bfloat16(ALL))].astype(np.float64)))


def decoded(array: Array, *, widen: bool) -> Array:
    request = ModelInferRequest()
    encode_inputs(request, {"x": array}, {"x": "BF16"})
    return decode_tensors(request.inputs, request.raw_input_contents, widen=widen)["x"]


def test_widening_appends_sixteen_zero_bits() -> None:
    bits = ALL.view("<u2").astype(np.uint32) << 16
    assert widen_bfloat16(ALL).tobytes() == bits.astype("<u4").tobytes()


def test_every_value_survives_widening_and_narrowing() -> None:
    wide = widen_bfloat16(ALL)
    again = narrow_to_bfloat16(wide).view("<u2")
    is_nan = np.isnan(wide)
    np.testing.assert_array_equal(again[~is_nan], ALL.view("<u2")[~is_nan])
    # A signalling NaN comes back quiet, with sign and payload.
    np.testing.assert_array_equal(again[is_nan], ALL.view("<u2")[is_nan] | 0x40)


@given(st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127))
def test_narrowing_finds_the_nearest_value(value: float) -> None:
    """Of all values there are, found by search; of two as near, the one whose last bit is 0."""
    above = int(np.searchsorted(FINITE, value))
    near = FINITE[max(0, above - 1) : above + 1]
    distances = abs(near - value)
    narrow = narrow_to_bfloat16(np.array([value], np.float32))
    assert abs(float(widen_bfloat16(narrow)[0]) - value) == distances.min()
    if len(near) == 2 and distances[0] == distances[1]:
        assert narrow.view("<u2")[0] % 2 == 0


def test_unwidened_it_stays_as_it_came_and_is_sent_so() -> None:
    kept = decoded(np.array([[1.5, -2.0]], np.float32), widen=False)
    assert (kept.dtype, kept.shape, datatype_of(kept)) == (BFLOAT16, (1, 2), "BF16")
    assert decoded(kept, widen=True).tolist() == [[1.5, -2.0]]


def test_unwidened_it_is_a_view_of_the_message() -> None:
    data = bytearray(b"\x80\x3f")
    tensor = ModelInferRequest.InferInputTensor(name="x", datatype="BF16", shape=[1])
    kept = decode_tensors([tensor], [data], widen=False)["x"]
    data[:] = b"\0\0"
    assert widen_bfloat16(kept).tolist() == [0]


@pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)])
def test_the_type_of_ml_dtypes_is_sent_as_it_is(shape: tuple[int, ...]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.ones(shape, ml_dtypes.bfloat16)
    assert datatype_of(array) == "BF16"
    np.testing.assert_array_equal(decoded(array, widen=True), np.ones(shape, np.float32))
