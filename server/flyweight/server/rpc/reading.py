"""The input tensors of a ModelInferRequest, from its bytes or from shared memory."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import Array, Buffer, InferParameters, TensorLimits, decode_tensors
from flyweight.server.errors import InvalidRequest, Unsupported
from flyweight.server.rpc.regions import Region, Regions
from flyweight.server.rpc.shared_memory import OFF_SENTENCE

_REGION: Final = "shared_memory_region"
_OFFSET: Final = "shared_memory_offset"
_SIZE: Final = "shared_memory_byte_size"

DEFAULT_LIMITS: Final = TensorLimits(
    # As much as a message may have by default: what comes through shared memory costs the server's memory as
    # well, and there no message size bounds it.
    tensor_bytes=64 << 20,
    # A photograph of the largest cameras, or a long book; the runtime makes text of it, of up to four times
    # the size.
    string_bytes=16 << 20,
    # Each takes some 50 bytes as an object, whatever it holds, and 0.4 us of a lock that all requests share.
    strings=1_000_000,
    # The key and value states of a transformer with 500 layers; real models have fewer than 200.
    tensors=1024,
)


class Place(NamedTuple):
    """Where in shared memory a tensor lies."""

    region: Region
    offset: int
    size_bytes: int


def read_inputs(
    request: ModelInferRequest,
    raw: Sequence[Buffer],
    regions: Regions | None = None,
    limits: TensorLimits = DEFAULT_LIMITS,
) -> dict[str, Array]:
    """Return a request's inputs as arrays by name, in its order.

    Raw numbers are not copied: their arrays are read-only views of `raw`. BF16 stays as it is
    (`flyweight.protos.tensors.BFLOAT16`), so that it passes for no other datatype.

    Args:
        request: the request.
        raw: its raw contents.
        regions: where shared memory is registered; None when it is switched off.
        limits: what is too much.

    Raises:
        TensorError: the request contradicts itself or the protocol, or passes a limit.
        InvalidRequest, UnknownRegion: it names shared memory that is not there.
        Unsupported: it names shared memory, and that is switched off.
    """
    # A slice of a repeated field is a list, made in half the time that iterating takes.
    specs = request.inputs[:]
    for spec in specs:
        # Their number first, which is quick: most tensors have no parameters.
        if spec.parameters and _REGION in spec.parameters:
            raw = _with_regions(specs, raw, regions, limits)
            break
    return decode_tensors(specs, raw, limits, widen=False)


def _with_regions(
    specs: Sequence[ModelInferRequest.InferInputTensor],
    raw: Sequence[Buffer],
    regions: Regions | None,
    limits: TensorLimits,
) -> list[Buffer]:
    """Return the raw contents of all inputs; those in shared memory have none in the request.

    As the protocol has it: a tensor in shared memory takes no entry of raw_input_contents, the others take
    theirs in order.
    """
    contents: list[Buffer] = []
    unread = iter(raw)
    for spec in specs:
        place = place_of(spec.name, spec.parameters, regions)
        if place is None:
            data = next(unread, None)
            if data is None:
                raise TensorError(
                    f"Tensor {spec.name!r} has no raw contents; beside tensors in shared memory send it so."
                )
            contents.append(data)
            continue
        if spec.HasField("contents"):
            raise TensorError(f"Tensor {spec.name!r} has contents and is in shared memory; send it once.")
        if place.size_bytes > limits.tensor_bytes:
            raise TensorError(
                f"Tensor {spec.name!r} has {place.size_bytes} bytes in shared memory, and "
                f"{limits.tensor_bytes} are the most for one tensor; send fewer rows in one request."
            )
        contents.append(place.region.read(place.offset, place.size_bytes))
    if next(unread, None) is not None:
        raise TensorError("There are more raw contents than tensors that are not in shared memory.")
    return contents


def place_of(name: str, parameters: InferParameters, regions: Regions | None) -> Place | None:
    """Return where a tensor's parameters say that it lies in shared memory; None where they do not.

    Raises:
        InvalidRequest: a parameter is of the wrong type or makes no sense.
        UnknownRegion: the region is not registered.
        Unsupported: shared memory is switched off.
    """
    if not parameters or _REGION not in parameters:
        return None
    if regions is None:
        raise Unsupported(f"The tensor {name!r} is in shared memory. {OFF_SENTENCE}")
    region = parameters[_REGION]
    if region.WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequest(f"The tensor {name!r} has a {_REGION} that is no text; name a region.")
    size_bytes = _length(name, parameters, _SIZE)
    if size_bytes is None:
        raise InvalidRequest(f"The tensor {name!r} has a {_REGION} and no {_SIZE}; send its length.")
    return Place(regions.get(region.string_param), _length(name, parameters, _OFFSET) or 0, size_bytes)


def _length(name: str, parameters: InferParameters, key: str) -> int | None:
    if key not in parameters:
        return None
    choice = parameters[key].WhichOneof("parameter_choice")
    value = getattr(parameters[key], choice) if choice in {"int64_param", "uint64_param"} else -1
    if value < 0:
        raise InvalidRequest(f"The tensor {name!r} has a {key} that is not a number of bytes; correct it.")
    return int(value)
