"""Raw contents of BYTES tensors: each element is its length in four little-endian bytes, then itself."""

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np

from flyweight.protos.errors import TensorError
from flyweight.protos.tensors.datatypes import Array
from flyweight.protos.tensors.limits import UNLIMITED, TensorLimits

Buffer: TypeAlias = bytes | bytearray | memoryview

_PREFIX_BYTES: Final = 4
_LONGEST_ELEMENT_BYTES: Final = 2**32 - 1


def split_bytes(
    name: str, shape: tuple[int, ...], elements: int, data: Buffer, limits: TensorLimits = UNLIMITED
) -> Array:
    """Return the elements of a BYTES tensor as a flat array of `bytes` objects.

    Raises:
        TensorError: the prefixes do not lead exactly to the end, or not to as many elements as the shape has,
            or a limit is passed.
    """
    total = len(data)
    # Before anything is allocated: a shape costs the sender nothing.
    if elements * _PREFIX_BYTES > total:
        raise _misfit(name, shape, total)
    check_strings(name, elements, limits)
    array = np.empty(elements, dtype=np.object_)
    position = 0
    for index in range(elements):
        start = position + _PREFIX_BYTES
        end = start + int.from_bytes(data[position:start], "little")
        if end > total:
            raise _misfit(name, shape, total)
        if end - start > limits.string_bytes:
            raise too_long(name, end - start, limits)
        array[index] = bytes(data[start:end])
        position = end
    if position != total:
        raise _misfit(name, shape, total)
    return array


def check_strings(name: str, elements: int, limits: TensorLimits) -> None:
    """Raise TensorError if a BYTES tensor has too many elements."""
    if elements > limits.strings:
        raise TensorError(
            f"Tensor {name!r} of datatype BYTES has {elements} elements, and {limits.strings} are the most; "
            "send fewer rows in one request."
        )


def too_long(name: str, length: int, limits: TensorLimits) -> TensorError:
    """Return the error for an element of a BYTES tensor that is too long."""
    return TensorError(
        f"Tensor {name!r} of datatype BYTES has an element of {length} bytes, and {limits.string_bytes} are "
        "the most."
    )


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
