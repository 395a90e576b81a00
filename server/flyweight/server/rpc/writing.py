"""The output tensors of a ModelInferResponse, into its bytes or into shared memory."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import Array, InferParameters, encode_outputs, encode_tensor
from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc.classification import classify
from flyweight.server.rpc.reading import DEFAULT_LIMITS, Place, place_of
from flyweight.server.rpc.regions import Regions

_CLASSIFICATION: Final = "classification"

NO_LABELS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


def wanted_outputs(request: ModelInferRequest, regions: Regions | None = None) -> list[str]:
    """Return the outputs that a request names, none meaning all; what it says of them is checked.

    To be asked before the model runs: what is refused here would be refused after the run as well.

    Raises:
        InvalidRequest: an output is named twice, or a parameter of it is wrong.
        UnknownRegion, Unsupported: it is to go to shared memory that is not there.
    """
    names: list[str] = []
    for output in request.outputs:
        names.append(output.name)
        if output.parameters:
            _class_count(output.name, output.parameters)
            place = place_of(output.name, output.parameters, regions)
            if place is not None:
                place.region.require(place.offset, place.size_bytes)
    if len(names) > DEFAULT_LIMITS.tensors:
        raise InvalidRequest(f"{len(names)} outputs are asked for; ask for each once.")
    if len(set(names)) != len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The output {name!r} is asked for twice; ask for each once.")
    return names


def write_outputs(
    response: ModelInferResponse,
    request: ModelInferRequest,
    outputs: Mapping[str, Array],
    labels: Mapping[str, Sequence[str]] = NO_LABELS,
    regions: Regions | None = None,
    *,
    has_batch_axis: bool = True,
) -> None:
    """Append a run's outputs to a response, each as the request wants it.

    Args:
        response: gets one output and one raw content for each array; an empty one where the tensor went to
            shared memory, as clients count on one for each.
        request: whose `outputs` say what is to be classified and what goes to shared memory.
        outputs: arrays by name, in the order in which they are to be sent.
        labels: for the classification extension, by output and index.
        regions: where shared memory is registered; None when it is switched off.
        has_batch_axis: whether the first axis of the outputs is one (max_batch_size above 0).

    Raises:
        InvalidRequest: an output cannot be classified, or needs more room in shared memory; the sentence says
            how much.
        UnknownRegion: the region was unregistered meanwhile.
        TensorError: an array cannot be sent.
    """
    wishes = {output.name: output.parameters for output in request.outputs if output.parameters}
    if not wishes:
        encode_outputs(response, outputs)
        return
    for name, array in outputs.items():
        parameters = wishes.get(name)
        if parameters is None:
            encode_outputs(response, {name: array})
            continue
        count = _class_count(name, parameters)
        tensor = (
            classify(name, array, count, labels.get(name, ()), has_batch_axis=has_batch_axis)
            if count
            else array
        )
        place = place_of(name, parameters, regions)
        if place is None:
            encode_outputs(response, {name: tensor})
        else:
            _to_region(response, name, tensor, place)


def _to_region(response: ModelInferResponse, name: str, array: Array, place: Place) -> None:
    datatype, data = encode_tensor(name, array)
    if len(data) > place.size_bytes:
        raise InvalidRequest(
            f"The output {name!r} takes {len(data)} bytes, and {place.size_bytes} were given for it in the "
            f"shared memory region {place.region.name!r}; give at least {len(data)}."
        )
    place.region.write(place.offset, data)
    output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
    output.parameters["shared_memory_region"].string_param = place.region.name
    output.parameters["shared_memory_offset"].int64_param = place.offset
    output.parameters["shared_memory_byte_size"].int64_param = len(data)
    response.raw_output_contents.append(b"")


def _class_count(name: str, parameters: InferParameters) -> int:
    """Return how many classes are wanted of an output; 0 where it is wanted as it is."""
    if _CLASSIFICATION not in parameters:
        return 0
    parameter = parameters[_CLASSIFICATION]
    choice = parameter.WhichOneof("parameter_choice")
    count = getattr(parameter, choice) if choice in {"int64_param", "uint64_param"} else -1
    if count < 0:
        raise InvalidRequest(
            f"The output {name!r} has a parameter 'classification' that is not a number of classes; send a "
            "whole number above 0."
        )
    return int(count)
