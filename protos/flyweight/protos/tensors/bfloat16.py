"""bfloat16: the upper half of a float32, which numpy has no type of its own for."""

import numpy as np

from flyweight.protos.tensors.datatypes import BFLOAT16, Array, is_foreign_bfloat16


def widen_bfloat16(array: Array) -> Array:
    """Return bfloat16 values (`BFLOAT16`) as float32, which is exact: a NaN keeps its bits."""
    wide: Array = (np.ascontiguousarray(array).view("<u2").astype("<u4") << 16).view("<f4")
    return wide.reshape(array.shape)


def as_sent(array: Array, datatype: str) -> Array:
    """Return an array of the type `DATATYPES[datatype]` as a request of the datatype holds it."""
    return narrow_to_bfloat16(array) if datatype == "BF16" else array


def narrow_to_bfloat16(array: Array) -> Array:
    """Return float32 values as `BFLOAT16` of the same shape, rounded to the nearest, ties to even.

    Values of the package ml_dtypes' own type are taken as they are.

    Source: the rounding of IEEE 754 (roundTiesToEven) to the 8 bits of significand that bfloat16 has.
    """
    if is_foreign_bfloat16(array.dtype):
        return array.astype(array.dtype.newbyteorder("<"), order="C").view(BFLOAT16)
    # Flat: a zero-dimensional array would make numpy scalars, whose arithmetic warns where it wraps.
    values = np.asarray(array, dtype="<f4").ravel()
    bits = values.view("<u4")
    # Just under half of the lost part, plus the lowest kept bit, carries exactly when rounding goes up.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # That carry would turn some NaNs into infinities; a set quiet bit keeps them NaN.
    kept = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
    return kept.astype("<u2").view(BFLOAT16).reshape(array.shape)
