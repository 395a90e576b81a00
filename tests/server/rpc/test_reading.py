from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest
from flyweight.protos.tensors import BFLOAT16, DATATYPES, TensorLimits, encode_inputs
from flyweight.server.errors import InvalidRequest, UnknownRegion, Unsupported
from flyweight.server.rpc.reading import DEFAULT_LIMITS, read_inputs
from flyweight.server.rpc.regions import Regions

X = np.array([[1, 2], [3, 4]], np.float32)


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    (tmp_path / "object").write_bytes(bytes(8) + X.tobytes())
    found = Regions(folder=tmp_path)
    found.register("region", "/object", 0, 24)
    yield found
    found.close()


def read(request: ModelInferRequest, *arguments: Any) -> dict[str, Any]:
    return read_inputs(request, request.raw_input_contents[:], *arguments)


def in_region(request: ModelInferRequest, name: str = "x", **parameters: Any) -> ModelInferRequest:
    tensor = request.inputs.add(name=name, datatype="FP32", shape=[2, 2])
    tensor.parameters["shared_memory_region"].string_param = "region"
    for key, value in {"byte_size": 16, "offset": 8, **parameters}.items():
        tensor.parameters[f"shared_memory_{key}"].int64_param = value
    return request


def test_raw_inputs_are_views_and_nobody_may_write_to_them() -> None:
    request = ModelInferRequest()
    encode_inputs(request, {"x": X})
    array = read(request)["x"]
    np.testing.assert_array_equal(array, X)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_bf16_stays_bf16() -> None:
    request = ModelInferRequest()
    encode_inputs(request, {"x": X}, {"x": "BF16"})
    assert read(request)["x"].dtype == BFLOAT16


def test_the_default_limits_take_a_message_of_the_default_size() -> None:
    assert DEFAULT_LIMITS.tensor_bytes == 64 << 20
    request = ModelInferRequest()
    encode_inputs(request, {"x": X})
    with pytest.raises(TensorError, match="'x' has 16 bytes, and 15 are the most"):
        read(request, None, TensorLimits(tensor_bytes=15))


def test_an_input_in_shared_memory_is_copied(regions: Regions, tmp_path: Path) -> None:
    array = read(in_region(ModelInferRequest()), regions)["x"]
    (tmp_path / "object").write_bytes(bytes(24))
    np.testing.assert_array_equal(array, X)


def test_inputs_beside_those_in_shared_memory_take_the_raw_contents_in_order(regions: Regions) -> None:
    request = ModelInferRequest()
    encode_inputs(request, {"a": X[0]})
    in_region(request)
    encode_inputs(request, {"b": X[1]})
    arrays = read(request, regions)
    assert [each.tolist() for each in arrays.values()] == [[1, 2], X.tolist(), [3, 4]]


def test_bytes_in_shared_memory_are_checked_like_any(regions: Regions, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"\xff\xff\xff\xff" + bytes(20))
    request = in_region(ModelInferRequest(), offset=0, byte_size=5)
    request.inputs[0].datatype = "BYTES"
    request.inputs[0].shape[:] = [1]
    with pytest.raises(TensorError, match=r"'x' of datatype BYTES.*does not fit its 5 bytes"):
        read(request, regions)


def test_shared_memory_that_is_off_is_unsupported() -> None:
    with pytest.raises(Unsupported, match=r"tensor 'x'.*--shared-memory"):
        read(in_region(ModelInferRequest()))


def typed_too(request: ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.append(1)


def one_raw_too_many(request: ModelInferRequest) -> None:
    request.raw_input_contents.append(b"")


def one_raw_too_few(request: ModelInferRequest) -> None:
    request.inputs.add(name="b", datatype="FP32", shape=[0])


def without_a_size(request: ModelInferRequest) -> None:
    del request.inputs[0].parameters["shared_memory_byte_size"]


def with_a_text_for_a_size(request: ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_byte_size"].string_param = "16"


def with_a_number_for_a_region(request: ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].int64_param = 1


def before_the_region(request: ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_offset"].int64_param = -1


def behind_the_region(request: ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_offset"].uint64_param = 2**64 - 1


def of_another_region(request: ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "other"


def larger_than_its_shape(request: ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [2, 1]


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (typed_too, TensorError, "'x' has contents and is in shared memory"),
        (one_raw_too_many, TensorError, "more raw contents"),
        (one_raw_too_few, TensorError, "'b' has no raw contents"),
        (without_a_size, InvalidRequest, "'x' has a shared_memory_region and no shared_memory_byte_size"),
        (with_a_text_for_a_size, InvalidRequest, "'x' has a shared_memory_byte_size that is not a number"),
        (with_a_number_for_a_region, InvalidRequest, "'x' has a shared_memory_region that is no text"),
        (before_the_region, InvalidRequest, "'x' has a shared_memory_offset that is not"),
        (behind_the_region, InvalidRequest, "'region' has 24 bytes"),
        (of_another_region, UnknownRegion, "no shared memory region 'other'"),
        (larger_than_its_shape, TensorError, "'x' .* takes 8 bytes, and 16 were sent"),
    ],
)
def test_wrong_words_about_shared_memory_are_refused_by_name(
    regions: Regions, change: Any, error: type[Exception], complaint: str
) -> None:
    request = in_region(ModelInferRequest())
    change(request)
    with pytest.raises(error, match=complaint):
        read(request, regions)


def test_a_tensor_in_shared_memory_has_the_same_limit(regions: Regions) -> None:
    with pytest.raises(TensorError, match="'x' has 16 bytes in shared memory, and 15 are the most"):
        read(in_region(ModelInferRequest()), regions, TensorLimits(tensor_bytes=15))


PARAMETERS = st.one_of(
    st.builds(InferParameter, bool_param=st.booleans()),
    st.builds(InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(InferParameter, string_param=st.sampled_from(["", "region", "x"])),
    st.builds(InferParameter),
)
KEYS = st.sampled_from(["shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "y"])
INPUTS = st.builds(
    ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["x", "y", ""]),
    datatype=st.sampled_from([*DATATYPES, "FP8", ""]),
    shape=st.lists(st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1), max_size=4),
    parameters=st.dictionaries(KEYS, PARAMETERS, max_size=3),
)
REQUESTS = st.builds(
    ModelInferRequest,
    inputs=st.lists(INPUTS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=64), max_size=3),
)


@given(REQUESTS, st.binary(max_size=32))
def test_no_request_makes_reading_raise_anything_unexpected(
    tmp_path_factory: pytest.TempPathFactory, request_: ModelInferRequest, noise: bytes
) -> None:
    """Neither a garbled message nor one whose parts contradict one another."""
    try:
        received = ModelInferRequest.FromString(request_.SerializeToString() + noise)
    except DecodeError:
        return
    with suppress(TensorError, InvalidRequest, UnknownRegion, Unsupported):
        arrays = read(received, SHARED)
        assert [list(arrays[each.name].shape) for each in received.inputs] == [
            list(each.shape) for each in received.inputs
        ]
        held = sum(array.nbytes for array in arrays.values())
        assert held <= 8 * (received.ByteSize() + 24)


@pytest.fixture(scope="module", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("shm")
    (folder / "object").write_bytes(bytes(24))
    global SHARED  # noqa: PLW0603 -- hypothesis repeats the test's body and not its fixtures
    SHARED = Regions(folder=folder)
    SHARED.register("region", "object", 0, 24)
    yield
    SHARED.close()


SHARED = Regions()
