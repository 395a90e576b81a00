"""bfloat16 in onnxruntime, whose `run` takes and gives arrays of numpy, which has no such type."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnxruntime

from flyweight.server.runtime.signature import BFLOAT16, Array

# TensorProto.DataType.BFLOAT16 (onnx.proto), and onnxruntime's name of such tensors.
_ONNX_TYPE: Final = 16
_TYPE_NAME: Final = "tensor(bfloat16)"


def run_with_values(
    session: onnxruntime.InferenceSession,
    names: Sequence[str],
    feed: Mapping[str, Array],
    run_options: onnxruntime.RunOptions | None,
) -> list[object]:
    """Run a session by its own values in place of arrays; return the named outputs, bfloat16 as BFLOAT16.

    It costs some microseconds and a copy of each output more than `InferenceSession.run`.
    """
    # Values borrow the memory of their arrays, which must live as long.
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in feed.items()}
    values = {name: _value_of(array) for name, array in arrays.items()}
    answers = session.run_with_ort_values(names, values, run_options)
    return [_array_of(answer) for answer in answers]


def _value_of(array: Array) -> onnxruntime.OrtValue:
    if array.dtype == BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view("<u2"), _ONNX_TYPE)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _array_of(value: onnxruntime.OrtValue) -> object:
    if value.data_type() != _TYPE_NAME:
        return value.numpy()
    shape = tuple(value.shape())
    count = math.prod(shape)
    if not count:
        return np.empty(shape, BFLOAT16)
    # numpy() refuses the type, and DLPack too; the memory is the CPU's, and the value's, so it is copied.
    bits = (ctypes.c_uint16 * count).from_address(value.data_ptr())
    return np.ctypeslib.as_array(bits).view(BFLOAT16).reshape(shape).copy()
