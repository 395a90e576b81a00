"""Typed contents: a tensor's elements one by one, in the InferTensorContents field for its datatype."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferTensorContents
from flyweight.protos.tensors.datatypes import DATATYPES, Array, unknown_datatype
from flyweight.protos.tensors.limits import UNLIMITED, TensorLimits
from flyweight.protos.tensors.shapes import count_elements, impossible_shape
from flyweight.protos.tensors.strings import check_strings, too_long

# Source: the Open Inference Protocol, gRPC, message InferTensorContents. FP16 and BF16 have no field.
_FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)
# These share a field that is wider than they are, so a value may not fit.
_NARROW: Final = frozenset({"INT8", "INT16", "UINT8", "UINT16"})


def decode_typed(
    name: str,
    datatype: str,
    shape: tuple[int, ...],
    contents: InferTensorContents,
    limits: TensorLimits = UNLIMITED,
) -> Array:
    """Return one tensor's typed contents as an array of `shape`.

    Raises:
        TensorError: the datatype is unknown or only travels as raw bytes, the contents are in another
            datatype's field, their number does not fit the shape, a value does not fit the datatype, or a
            limit is passed.
    """
    elements = count_elements(name, shape)
    field = _FIELDS.get(datatype)
    if field is None:
        raise _without_field(name, datatype)
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise TensorError(
                f"Tensor {name!r} of datatype {datatype} has {descriptor.name}; "
                f"its contents belong in {field}."
            )
    values: Sequence[Any] = getattr(contents, field)
    if len(values) != elements:
        raise TensorError(
            f"Tensor {name!r} of datatype {datatype} and shape {list(shape)} takes {elements} elements, and "
            f"{len(values)} were sent in {field} and none as raw bytes."
        )
    _check_limits(name, datatype, values, limits)
    try:
        return _array(name, datatype, values).reshape(shape)
    except ValueError as error:
        raise impossible_shape(name, shape) from error


def _check_limits(name: str, datatype: str, values: Sequence[Any], limits: TensorLimits) -> None:
    if datatype != "BYTES":
        size = len(values) * DATATYPES[datatype].itemsize
        if size > limits.tensor_bytes:
            raise TensorError(
                f"Tensor {name!r} has {size} bytes, and {limits.tensor_bytes} are the most for one tensor; "
                "send fewer rows in one request."
            )
        return
    check_strings(name, len(values), limits)
    longest = max(map(len, values), default=0)
    if longest > limits.string_bytes:
        raise too_long(name, longest, limits)


def _array(name: str, datatype: str, values: Sequence[Any]) -> Array:
    dtype = DATATYPES[datatype]
    if datatype not in _NARROW:
        return np.fromiter(values, dtype, count=len(values))
    wide = np.fromiter(values, np.int64, count=len(values))
    limits = np.iinfo(dtype)
    outside = wide[(wide < limits.min) | (wide > limits.max)]
    if outside.size:
        raise TensorError(
            f"Tensor {name!r} of datatype {datatype} has a value {outside[0]}; "
            f"send {limits.min} to {limits.max}."
        )
    return wide.astype(dtype)


def _without_field(name: str, datatype: str) -> TensorError:
    if datatype in DATATYPES:
        return TensorError(f"Tensor {name!r} of datatype {datatype} has no raw contents; send it as such.")
    return unknown_datatype(name, datatype)
