"""Tensors to the wire and back, written from the protocol's text and not from anybody's library.

Source: the Open Inference Protocol, gRPC, "Tensor Data" and message InferTensorContents; Triton's binary
tensor data extension for the raw bytes of BYTES elements.
"""

import struct
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Little-endian, row-major. BF16 travels as its bit pattern here: numpy has no type for it.
NUMPY: Final = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES: Final = (*NUMPY, "BYTES")
# FP16 and BF16 have no field: they travel as raw bytes only.
FIELDS: Final = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def samples(datatype: str) -> Array:
    """Return elements that a careless server changes: extremes, NaN, signed zeros, NUL bytes."""
    if datatype == "BYTES":
        return objects([b"", b"a", "h\u00e4\U0001f40b".encode(), b"\0a\0", b"x" * 300])
    if datatype == "BOOL":
        return np.array([True, False, False, True])
    if datatype == "BF16":
        return np.array([0x0000, 0x8000, 0x3F80, 0x7F80, 0x7FC0, 0x0001], "<u2")
    dtype = np.dtype(NUMPY[datatype])
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        values = [0.0, -0.0, 1.5, float(limits.max), float(limits.min), float(limits.tiny)]
        return np.array([*values, np.inf, -np.inf, np.nan], dtype)
    limits_of_integer = np.iinfo(dtype)
    return np.array([0, 1, limits_of_integer.min, limits_of_integer.max], dtype)


def objects(elements: Iterable[bytes]) -> Array:
    """Return a flat array of byte strings of any length."""
    listed = list(elements)
    array = np.empty(len(listed), np.object_)
    array[:] = listed
    return array


def raw(datatype: str, array: Array) -> bytes:
    """Return an array's bytes as raw contents."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, NUMPY[datatype]).tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel().tolist())


def put_typed(contents: Any, datatype: str, array: Array) -> None:
    """Write an array's elements into the field of InferTensorContents that is theirs."""
    getattr(contents, FIELDS[datatype]).extend(array.ravel().tolist())


def outputs_of(response: Any) -> dict[str, tuple[str, Array]]:
    """Return a response's tensors, whichever way they travel, as name -> (datatype, array)."""
    raws = list(response.raw_output_contents)
    found = {}
    for index, tensor in enumerate(response.outputs):
        flat = (
            _from_raw(tensor.datatype, raws[index])
            if raws
            else _from_typed(tensor.datatype, tensor.contents, tuple(tensor.shape))
        )
        found[tensor.name] = (tensor.datatype, flat.reshape(tuple(tensor.shape)))
    return found


def _from_raw(datatype: str, data: bytes) -> Array:
    if datatype != "BYTES":
        return np.frombuffer(data, NUMPY[datatype])
    elements, position = [], 0
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position)
        elements.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return objects(elements)


def _from_typed(datatype: str, contents: Any, shape: tuple[int, ...]) -> Array:
    if datatype not in FIELDS:
        # Without a field of its own such a tensor can be here only when it is empty.
        return np.zeros(shape, NUMPY[datatype]).ravel()
    values = list(getattr(contents, FIELDS[datatype]))
    return objects(values) if datatype == "BYTES" else np.array(values, NUMPY[datatype])


def same_bits(left: Array, right: Array) -> bool:
    """Tell whether two arrays hold the same elements bit for bit, NaN and signed zeros included."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype == np.object_:
        return bool(left.ravel().tolist() == right.ravel().tolist())
    return bool(left.tobytes() == right.tobytes())
