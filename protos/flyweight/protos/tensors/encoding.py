"""numpy arrays as tensors of a request or response."""

from collections.abc import Mapping

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors.datatypes import Array, datatype_of
from flyweight.protos.tensors.raw import encode_raw


def encode_inputs(
    request: ModelInferRequest, arrays: Mapping[str, Array], datatypes: Mapping[str, str] | None = None
) -> None:
    """Append arrays to a request as inputs with raw contents, in the mapping's order.

    Args:
        request: gets one input and one raw content for each array.
        arrays: by input name, of any shape; text goes out as UTF-8.
        datatypes: by input name, where the array's type does not say it all: BF16 for a float32 array.

    Raises:
        TensorError: an array cannot be sent, or not as the datatype asked for; the text names it.
    """
    for name, array in arrays.items():
        datatype, data = encode_tensor(name, array, datatypes)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(data)


def encode_outputs(
    response: ModelInferResponse, arrays: Mapping[str, Array], datatypes: Mapping[str, str] | None = None
) -> None:
    """Append arrays to a response as outputs with raw contents, in the mapping's order.

    Arguments and errors are those of `encode_inputs`.
    """
    for name, array in arrays.items():
        datatype, data = encode_tensor(name, array, datatypes)
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(data)


def encode_tensor(name: str, array: Array, datatypes: Mapping[str, str] | None = None) -> tuple[str, bytes]:
    """Return the datatype and the raw contents that an array is sent as.

    Arguments and errors are those of `encode_inputs`.
    """
    asked = None if datatypes is None else datatypes.get(name)
    try:
        datatype = datatype_of(array)
        # float32 as BF16 is the one conversion done here, as numpy has no type of its own for it.
        if asked == "BF16" and datatype == "FP32":
            datatype = asked
        data = encode_raw(array, datatype)
    except TensorError as error:
        raise TensorError(f"Tensor {name!r}: {error}") from error
    if asked not in {None, datatype}:
        raise TensorError(f"Tensor {name!r}: an array of {array.dtype} is not {asked}; convert it first.")
    return datatype, data
