"""ONNX's stored tensors and element types as torch's."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from flyweight.compressor.errors import ModelError

_TYPES: Final[Mapping[int, torch.dtype]] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.BOOL: torch.bool,
}


def dtype_of(element_type: int) -> torch.dtype:
    """Return torch's type for one of ONNX's.

    Raises:
        ModelError: torch has none (strings, 4-bit and 8-bit floating-point numbers).
    """
    if element_type not in _TYPES:
        name = onnx.TensorProto.DataType.Name(element_type)
        raise ModelError(f"The model computes with {name}, which torch cannot; only ONNX passes fit it.")
    return _TYPES[element_type]


def read_tensor(tensor: onnx.TensorProto) -> Tensor:
    """Return a stored tensor.

    Raises:
        ModelError: it is of a type torch does not have.
    """
    dtype = dtype_of(tensor.data_type)
    array = numpy_helper.to_array(tensor)
    if dtype is torch.bfloat16:
        array = array.astype(np.float32)
    # A copy: the array may be a read-only view of the file's bytes.
    return torch.from_numpy(np.array(array, order="C")).to(dtype)
