"""The protocol's tensors as numpy arrays, and back.

Arrays go out as raw bytes (`encode_inputs`, `encode_outputs`) and come in as raw bytes or as typed contents
(`decode_tensors`). Raw numbers are not copied: the array that is returned is a read-only view of the bytes.
Whatever does not fit together raises TensorError with the tensor's name in it.

Source: the Open Inference Protocol, gRPC, "Tensor Data"; Triton's binary tensor data extension for BYTES.
"""

from flyweight.protos.tensors.datatypes import BFLOAT16, DATATYPES, Array, datatype_of
from flyweight.protos.tensors.decoding import TensorMessage, decode_tensors
from flyweight.protos.tensors.encoding import encode_inputs, encode_outputs, encode_tensor
from flyweight.protos.tensors.limits import UNLIMITED, TensorLimits
from flyweight.protos.tensors.parameters import InferParameters, ParameterValue, parameter, parameters_to_dict
from flyweight.protos.tensors.strings import Buffer

__all__ = [
    "BFLOAT16",
    "DATATYPES",
    "UNLIMITED",
    "Array",
    "Buffer",
    "InferParameters",
    "ParameterValue",
    "TensorLimits",
    "TensorMessage",
    "datatype_of",
    "decode_tensors",
    "encode_inputs",
    "encode_outputs",
    "encode_tensor",
    "parameter",
    "parameters_to_dict",
]
