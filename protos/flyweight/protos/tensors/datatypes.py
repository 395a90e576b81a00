"""The protocol's datatypes and the numpy types that hold them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.errors import TensorError

Array = NDArray[Any]

# The datatypes whose bytes on the wire (little-endian, row-major) are numpy's bytes.
NUMBERS: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)

# bfloat16 as its bits: a type that numpy can hold, slice and join, and that passes for no other datatype.
BFLOAT16: Final = np.dtype([("bfloat16", "<u2")])

# The numpy type of a decoded array, by datatype. numpy has no bfloat16, and float32 holds every value of it;
# BYTES are arrays of `bytes` objects.
DATATYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {"BOOL": np.dtype(np.bool_), **NUMBERS, "BF16": np.dtype("<f4"), "BYTES": np.dtype(np.object_)}
)

_BY_DTYPE: Final[Mapping[np.dtype[Any], str]] = {
    np.dtype(np.bool_): "BOOL",
    **{dtype: datatype for datatype, dtype in NUMBERS.items()},
    BFLOAT16: "BF16",
    np.dtype(np.object_): "BYTES",
}


def datatype_of(array: Array) -> str:
    """Return the datatype that an array travels as; BYTES for text, byte strings and objects.

    Raises:
        TensorError: the protocol has no datatype for it.
    """
    datatype = _BY_DTYPE.get(array.dtype)
    if datatype is not None:
        return datatype
    if array.dtype.kind in "SU":
        return "BYTES"
    if is_foreign_bfloat16(array.dtype):
        return "BF16"
    datatype = _BY_DTYPE.get(array.dtype.newbyteorder("<"))
    if datatype is None:
        raise TensorError(
            f"An array of {array.dtype} has no datatype in the protocol; convert it to one of "
            f"{', '.join(sorted(DATATYPES))}."
        )
    return datatype


def is_foreign_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether a type is the bfloat16 of the package ml_dtypes, which others use where numpy has none."""
    return dtype.name == "bfloat16" and dtype.itemsize == BFLOAT16.itemsize


def unknown_datatype(name: str, datatype: str) -> TensorError:
    """Return the error for a datatype that the protocol does not have."""
    return TensorError(
        f"Tensor {name!r} has datatype {datatype!r}, which the protocol does not have; use one of "
        f"{', '.join(sorted(DATATYPES))}."
    )
