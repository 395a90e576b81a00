"""Raw contents: a tensor's bytes, little-endian and row-major.

In a BYTES tensor each element is its length in four little-endian bytes, then itself.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from flyweight.protos.errors import TensorError
from flyweight.protos.tensors.datatypes import NUMBERS, Array, unknown_datatype
from flyweight.protos.tensors.shapes import count_elements, impossible_shape

_PREFIX_BYTES: Final = 4
_LONGEST_ELEMENT_BYTES: Final = 2**32 - 1


def decode_raw(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """Return one tensor's bytes as an array of `shape`.

    Raises:
        TensorError: the datatype is unknown, or bytes, datatype and shape do not fit together.
    """
    elements = count_elements(name, shape)
    dtype = NUMBERS.get(datatype)
    try:
        if dtype is not None:
            _check_length(name, datatype, shape, elements * dtype.itemsize, len(data))
            return np.frombuffer(data, dtype).reshape(shape)
        if datatype == "BYTES":
            return split_bytes(name, shape, elements, data).reshape(shape)
        if datatype == "BOOL":
            _check_length(name, datatype, shape, elements, len(data))
            return _bools(name, data).reshape(shape)
        if datatype == "BF16":
            _check_length(name, datatype, shape, elements * 2, len(data))
            return widen_bfloat16(np.frombuffer(data, "<u2")).reshape(shape)
    except ValueError as error:
        # The lengths agree, so what numpy still refuses is an empty tensor with absurd axes.
        raise impossible_shape(name, shape) from error
    raise unknown_datatype(name, datatype)


def encode_raw(array: Array, datatype: str) -> bytes:
    """Return an array's bytes as `datatype`, which must be one that the array can be sent as.

    Raises:
        TensorError: an element of a BYTES tensor is neither text nor bytes, or is too long.
    """
    if datatype == "BYTES":
        return join_bytes(array)
    if datatype == "BF16":
        return narrow_to_bfloat16(array).tobytes()
    if datatype != "BOOL" and array.dtype != NUMBERS[datatype]:
        array = array.astype(NUMBERS[datatype])
    return array.tobytes()


def _check_length(name: str, datatype: str, shape: tuple[int, ...], needed: int, sent: int) -> None:
    if needed != sent:
        raise TensorError(
            f"Tensor {name!r} of datatype {datatype} and shape {list(shape)} takes {needed} bytes, and "
            f"{sent} were sent."
        )


def _bools(name: str, data: bytes | memoryview) -> Array:
    values = np.frombuffer(data, np.uint8)
    # A numpy bool that is neither 0 nor 1 breaks comparisons and counts later on.
    if values.size and values.max() > 1:
        raise TensorError(f"Tensor {name!r} of datatype BOOL has a byte {values.max()}; send 0 or 1.")
    return values.view(np.bool_)


def split_bytes(name: str, shape: tuple[int, ...], elements: int, data: bytes | memoryview) -> Array:
    """Return the elements of a BYTES tensor as a flat array of `bytes` objects.

    Raises:
        TensorError: the prefixes do not lead exactly to the end, or not to as many elements as the shape has.
    """
    total = len(data)
    # Before anything is allocated: a shape costs the sender nothing.
    if elements * _PREFIX_BYTES > total:
        raise _misfit(name, shape, total)
    array = np.empty(elements, dtype=np.object_)
    position = 0
    for index in range(elements):
        start = position + _PREFIX_BYTES
        end = start + int.from_bytes(data[position:start], "little")
        if end > total:
            raise _misfit(name, shape, total)
        array[index] = bytes(data[start:end])
        position = end
    if position != total:
        raise _misfit(name, shape, total)
    return array


def _misfit(name: str, shape: tuple[int, ...], total: int) -> TensorError:
    return TensorError(
        f"Tensor {name!r} of datatype BYTES and shape {list(shape)} does not fit its {total} bytes; send "
        "every element as its length in four little-endian bytes and then itself."
    )


def join_bytes(array: Array) -> bytes:
    """Return the elements of an array of text or bytes, each after its length.

    Raises:
        TensorError: an element is neither text nor bytes, or is too long.
    """
    parts: list[bytes] = []
    for element in as_bytes(array.ravel().tolist()):
        if len(element) > _LONGEST_ELEMENT_BYTES:
            raise TensorError(f"An element of {len(element)} bytes is too long for a BYTES tensor.")
        parts.append(len(element).to_bytes(_PREFIX_BYTES, "little"))
        parts.append(element)
    return b"".join(parts)


def as_bytes(elements: Iterable[object]) -> Iterable[bytes]:
    """Yield each element as bytes, text as UTF-8.

    Raises:
        TensorError: an element is neither.
    """
    for element in elements:
        if isinstance(element, str):
            yield element.encode()
        elif isinstance(element, bytes):
            yield element
        else:
            raise TensorError(
                f"A BYTES tensor holds text or bytes, not {type(element).__name__}; convert its elements."
            )


def widen_bfloat16(bits: Array) -> Array:
    """Return bfloat16 bit patterns (uint16) as float32, which is exact."""
    wide: Array = (bits.astype("<u4") << 16).view("<f4")
    return wide


def narrow_to_bfloat16(array: Array) -> Array:
    """Return float32 values as flat bfloat16 bit patterns (uint16), rounded to the nearest, ties to even."""
    # Flat: a zero-dimensional array would make numpy scalars, whose arithmetic warns where it wraps.
    values = np.asarray(array, dtype="<f4").ravel()
    bits = values.view("<u4")
    # Just under half of the lost part, plus the lowest kept bit, carries exactly when rounding goes up.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # That carry would turn some NaNs into infinities; a set quiet bit keeps them NaN.
    kept = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
    return kept.astype("<u2")
