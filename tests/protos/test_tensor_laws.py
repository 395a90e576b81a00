"""Raw and typed contents of one array are the same array."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import DATATYPES, Array, decode_tensors, encode_inputs
from flyweight.protos.tensors.typed import _FIELDS

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def drawn(data: st.DataObject, datatype: str) -> Array:
    elements: Any = st.binary(max_size=9) if datatype == "BYTES" else None
    return data.draw(hnp.arrays(DATATYPES[datatype], SHAPES, elements=elements))


@given(st.data(), st.sampled_from(sorted(_FIELDS)))
def test_raw_and_typed_contents_mean_the_same(data: st.DataObject, datatype: str) -> None:
    array = drawn(data, datatype)
    raw, typed = ModelInferRequest(), ModelInferRequest()
    encode_inputs(raw, {"x": array})
    tensor = typed.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, _FIELDS[datatype]).extend(array.ravel().tolist())
    received = ModelInferRequest.FromString(typed.SerializeToString())
    one = decode_tensors(raw.inputs, raw.raw_input_contents)["x"]
    other = decode_tensors(received.inputs, received.raw_input_contents)["x"]
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tolist() == other.tolist() or np.isnan(array.astype(float)).any()


@given(st.lists(st.sampled_from(sorted(DATATYPES)), min_size=1, max_size=5), st.data())
def test_several_tensors_keep_their_names_and_order(datatypes: list[str], data: st.DataObject) -> None:
    arrays = {f"t{index}": drawn(data, datatype) for index, datatype in enumerate(datatypes)}
    request = ModelInferRequest()
    encode_inputs(request, arrays, {name: "BF16" for name in arrays if datatypes[int(name[1:])] == "BF16"})
    decoded = decode_tensors(request.inputs, request.raw_input_contents)
    assert list(decoded) == list(arrays)
    assert [array.shape for array in decoded.values()] == [array.shape for array in arrays.values()]
