"""onnxruntime's names of types, in the words of the Open Inference Protocol."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flyweight.server.errors import LoadFailed

_DATATYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tensor(bool)": "BOOL",
        "tensor(uint8)": "UINT8",
        "tensor(uint16)": "UINT16",
        "tensor(uint32)": "UINT32",
        "tensor(uint64)": "UINT64",
        "tensor(int8)": "INT8",
        "tensor(int16)": "INT16",
        "tensor(int32)": "INT32",
        "tensor(int64)": "INT64",
        "tensor(float16)": "FP16",
        "tensor(bfloat16)": "BF16",
        "tensor(float)": "FP32",
        "tensor(double)": "FP64",
        "tensor(string)": "BYTES",
    }
)


def datatype_of_onnx(type_name: str, what: str) -> str:
    """Return the datatype of onnxruntime's `type_name`; `what` is the tensor as a sentence names it.

    Raises:
        LoadFailed: it is a sequence, a map, an optional, or a number format that the protocol does not have.
    """
    datatype = _DATATYPES.get(type_name)
    if datatype is not None:
        return datatype
    advice = "such tensors are not served"
    if type_name.startswith(("seq(", "map(", "optional(", "sparse_tensor(")):
        advice = "only plain tensors are served; export the model without it (skl2onnx: zipmap=False)"
    raise LoadFailed(f"{what} has the type {type_name}, and {advice}.")
