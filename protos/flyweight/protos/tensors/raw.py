"""Raw contents: a tensor's bytes, little-endian and row-major."""

from typing import Final

import numpy as np

from flyweight.protos.errors import TensorError
from flyweight.protos.tensors.bfloat16 import narrow_to_bfloat16
from flyweight.protos.tensors.datatypes import BFLOAT16, NUMBERS, Array, unknown_datatype
from flyweight.protos.tensors.limits import UNLIMITED, TensorLimits
from flyweight.protos.tensors.shapes import MOST_AXES, count_elements, impossible_shape
from flyweight.protos.tensors.strings import Buffer, join_bytes, split_bytes

_FIXED: Final = {**NUMBERS, "BOOL": np.dtype(np.bool_), "BF16": BFLOAT16}


def decode_raw(
    name: str,
    datatype: str,
    shape: tuple[int, ...],
    data: Buffer,
    limits: TensorLimits = UNLIMITED,
) -> Array:
    """Return one tensor's bytes as an array of `shape`; BF16 as `BFLOAT16`.

    Raises:
        TensorError: the datatype is unknown, a limit is passed, or bytes, datatype and shape do not fit.
    """
    size = len(data)
    if size > limits.tensor_bytes:
        raise TensorError(
            f"Tensor {name!r} has {size} bytes, and {limits.tensor_bytes} are the most for one tensor; "
            "send fewer rows in one request."
        )
    dtype = NUMBERS.get(datatype)
    if dtype is not None and len(shape) <= MOST_AXES:
        try:
            array = np.ndarray(shape, dtype, data)
        except (TypeError, ValueError, OverflowError):
            # Too few bytes or an impossible shape: the checks below find the words for it.
            pass
        else:
            # The shape too: numpy takes a single length of -1 as "whatever the bytes are enough for".
            if array.nbytes == size and array.shape == shape:
                return array
    return _decode_checked(name, datatype, shape, data, limits)


def _decode_checked(
    name: str, datatype: str, shape: tuple[int, ...], data: Buffer, limits: TensorLimits
) -> Array:
    """Decode what is no array of numbers, and refuse what is none of them."""
    elements = count_elements(name, shape)
    dtype = _FIXED.get(datatype)
    if dtype is None and datatype != "BYTES":
        raise unknown_datatype(name, datatype)
    try:
        if dtype is None:
            return split_bytes(name, shape, elements, data, limits).reshape(shape)
        _check_length(name, datatype, shape, elements * dtype.itemsize, len(data))
        if datatype == "BOOL":
            return _bools(name, data).reshape(shape)
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        # The lengths agree, so what numpy still refuses is an empty tensor with absurd axes.
        raise impossible_shape(name, shape) from error


def encode_raw(array: Array, datatype: str) -> bytes:
    """Return an array's bytes as `datatype`, which must be one that the array can be sent as.

    Raises:
        TensorError: an element of a BYTES tensor is neither text nor bytes, or is too long.
    """
    if datatype == "BYTES":
        return join_bytes(array)
    if datatype == "BF16" and array.dtype != BFLOAT16:
        return narrow_to_bfloat16(array).tobytes()
    if array.dtype != _FIXED[datatype]:
        array = array.astype(_FIXED[datatype])
    return array.tobytes()


def _check_length(name: str, datatype: str, shape: tuple[int, ...], needed: int, sent: int) -> None:
    if needed != sent:
        raise TensorError(
            f"Tensor {name!r} of datatype {datatype} and shape {list(shape)} takes {needed} bytes, and "
            f"{sent} were sent."
        )


def _bools(name: str, data: Buffer) -> Array:
    values = np.frombuffer(data, np.uint8)
    # A numpy bool that is neither 0 nor 1 breaks comparisons and counts later on.
    if values.size and values.max() > 1:
        raise TensorError(f"Tensor {name!r} of datatype BOOL has a byte {values.max()}; send 0 or 1.")
    return values.view(np.bool_)
