"""Tensors of every datatype go in and come back as they were."""

from typing import Any

import numpy as np
import pytest
from oip.cases import MUST, SHOULD, case
from oip.encoding import DATATYPES, FIELDS, Array, objects, same_bits, samples
from oip.requests import add_raw, add_sub_request, add_typed, identity_request, request
from oip.target import Target


class Datatype(str):
    """A datatype as a parameter; it needs its identity model."""

    __slots__ = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Return the model that takes it."""
        return (f"identity_{self.lower()}",)


EVERY = [pytest.param(Datatype(name), id=name) for name in DATATYPES]
TYPED = [pytest.param(Datatype(name), id=name) for name in FIELDS]


def must_come_back(target: Target, datatype: str, array: Array, *, typed: bool = False) -> None:
    tensors = target.infer(identity_request(datatype, array, typed=typed)).tensors()
    said, found = tensors["OUTPUT"]
    assert said == datatype, f"REQUIRED datatype {datatype}; answered {said}"
    assert same_bits(found, array), f"REQUIRED the same elements; sent {array!r}, answered {found!r}"


@pytest.mark.parametrize("datatype", EVERY)
@case("contents/raw", MUST)
def test_raw_contents_come_back(target: Target, datatype: str) -> None:
    """Raw contents are read little-endian and row-major, and no bit is lost: extremes, NaN, -0.0, odd bytes.

    Source: Open Inference Protocol, gRPC, "Tensor Data"; ModelInferRequest.raw_input_contents.
    """
    must_come_back(target, datatype, samples(datatype))


@pytest.mark.parametrize("datatype", TYPED)
@case("contents/typed", MUST)
def test_typed_contents_come_back(target: Target, datatype: str) -> None:
    """Typed contents are read from the field of the datatype.

    Source: Open Inference Protocol, gRPC, message InferTensorContents.
    """
    must_come_back(target, datatype, samples(datatype), typed=True)


@pytest.mark.parametrize("datatype", EVERY)
@case("contents/empty", SHOULD)
def test_an_empty_tensor_comes_back(target: Target, datatype: str) -> None:
    """A tensor of shape [0] is a tensor.

    Source: Open Inference Protocol, "Tensor Data": the elements are as many as the shape says, here none.
    """
    must_come_back(target, datatype, samples(datatype)[:0])


@case("contents/empty-typed", SHOULD)
def test_an_empty_tensor_may_have_no_contents_at_all(target: Target) -> None:
    """A tensor of shape [0] without raw contents is an empty tensor.

    Source: Open Inference Protocol, gRPC, message InferTensorContents.
    """
    must_come_back(target, "FP32", np.zeros(0, "<f4"), typed=True)


@case("contents/scalar", SHOULD, "scalar")
@pytest.mark.parametrize("typed", [pytest.param(False, id="raw"), pytest.param(True, id="typed")])
def test_a_scalar_comes_back(target: Target, typed: bool) -> None:
    """A tensor of shape [] has one element.

    Source: Open Inference Protocol, "Tensor Data": the product of no axes is one.
    """
    asked = request("scalar")
    (add_typed if typed else add_raw)(asked, "INPUT", "FP32", np.array(2.5, "<f4"))
    (found,) = target.infer(asked).tensors().values()
    assert (found[1].shape, found[1].tolist()) == ((), 2.5)


BYTE_STRINGS: list[Any] = [
    pytest.param([b""], id="one-empty"),
    pytest.param([b"", b"", b""], id="several-empty"),
    pytest.param([b"a\0b", b"\0"], id="nul"),
    pytest.param([b"x" * 100_000], id="long"),
    pytest.param([b"\x05\0\0\0abcde"], id="looks-like-a-prefix"),
    pytest.param([str(n).encode() for n in range(1000)], id="many"),
]


@pytest.mark.parametrize("elements", BYTE_STRINGS)
@case("contents/bytes-raw", MUST, "identity_bytes")
def test_byte_strings_come_back_raw(target: Target, elements: list[bytes]) -> None:
    """A BYTES element is any bytes of any length, after its length in four little-endian bytes.

    Source: Triton, protocol extensions, "Binary Tensor Data Extension", BYTES.
    """
    must_come_back(target, "BYTES", objects(elements))


@pytest.mark.parametrize("elements", BYTE_STRINGS)
@case("contents/bytes-typed", MUST, "identity_bytes")
def test_byte_strings_come_back_typed(target: Target, elements: list[bytes]) -> None:
    """A BYTES element is any bytes of any length in bytes_contents.

    Source: Open Inference Protocol, gRPC, InferTensorContents.bytes_contents.
    """
    must_come_back(target, "BYTES", objects(elements), typed=True)


@pytest.mark.parametrize("typed", [pytest.param(False, id="raw"), pytest.param(True, id="typed")])
@case("contents/bytes-not-text", SHOULD, "identity_bytes")
def test_bytes_that_are_no_text_come_back(target: Target, typed: bool) -> None:
    """BYTES are bytes: a picture is as good as a word. A runtime whose strings are text cannot do this.

    Source: Open Inference Protocol, "Tensor Data Types", BYTES; ONNX, on the other hand, has UTF-8 strings.
    """
    must_come_back(target, "BYTES", objects([b"\xff\xfe\x80", b"\x89PNG\r\n\x1a\n\0\0"]), typed=typed)


@case("contents/row-major", MUST)
def test_elements_are_row_major(target: Target) -> None:
    """The last axis moves fastest, on the way in and on the way out.

    Source: Open Inference Protocol, "Tensor Data": "row-major order".
    """
    matrix = np.arange(6, dtype="<f4").reshape(2, 3)
    for add in (add_raw, add_typed):
        asked = request("transpose")
        add(asked, "INPUT", "FP32", matrix)
        (found,) = target.infer(asked).tensors().values()
        assert found[1].tolist() == matrix.T.tolist()


@case("contents/typed-several", MUST)
def test_several_typed_inputs(target: Target) -> None:
    """Every input may carry its own typed contents.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.InferInputTensor.contents.
    """
    asked, one = request("add_sub"), np.ones((2, 4), "<f4")
    add_typed(asked, "INPUT0", "FP32", one * 3)
    add_typed(asked, "INPUT1", "FP32", one)
    tensors = target.infer(asked).tensors()
    assert (tensors["OUTPUT0"][1] == 4).all()
    assert (tensors["OUTPUT1"][1] == 2).all()


@case("contents/large", SHOULD)
def test_a_tensor_larger_than_grpcs_default_comes_back(target: Target) -> None:
    """A tensor of 16 MiB is taken and given; gRPC's default of 4 MiB is 6 colour images of 224 x 224.

    Source: none in the protocol; every server of it raises gRPC's limit.
    """
    array = np.arange(4 << 20, dtype="<f4")
    found = target.infer(identity_request("FP32", array)).tensors()["OUTPUT"][1]
    assert same_bits(found, array)


@case("contents/batch", MUST)
def test_rows_of_a_batch_stay_in_order(target: Target) -> None:
    """A request of several rows is answered row by row.

    Source: Open Inference Protocol, "Tensor Data".
    """
    for rows in (1, 2, 5, 8):
        a = np.arange(rows * 4, dtype="<f4").reshape(rows, 4)
        tensors = target.infer(add_sub_request(a, a * 10)).tensors()
        assert (tensors["OUTPUT0"][1] == a * 11).all()
        assert (tensors["OUTPUT1"][1] == a * -9).all()
