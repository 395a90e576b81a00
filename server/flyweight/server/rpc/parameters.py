"""What the parameters of a ModelInferRequest ask for: the sticky key, and what flyweight does not do."""

from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest
from flyweight.server.errors import InvalidRequest, Unsupported
from flyweight.server.rpc.call import Call
from flyweight.server.traffic import Plan, sticky_key

# Parameters of a tensor that change what its contents mean; any other may be ignored safely.
_REFUSED: Final = {
    "shared_memory_region": "shared memory; send the contents in the request",
    "shared_memory_byte_size": "shared memory; send the contents in the request",
    "shared_memory_offset": "shared memory; send the contents in the request",
    "classification": "the classification extension; ask for the whole output and take its largest entries",
}


def refuse_unsupported(request: ModelInferRequest) -> None:
    """Refuse a request whose tensors ask for what would otherwise be ignored at the caller's cost.

    Raises:
        Unsupported: naming the tensor and the parameter.
        InvalidRequest: an input is BF16, which onnxruntime's CPU provider has no kernels for; decoded to
            numpy it would pass for FP32.
    """
    for given in request.inputs:
        if given.datatype == "BF16":
            raise InvalidRequest(f"The input {given.name!r} is BF16, which no model here takes; send FP32.")
    for kind, tensors in (("input", request.inputs), ("output", request.outputs)):
        for tensor in tensors:
            for name in tensor.parameters:
                if name in _REFUSED:
                    raise Unsupported(
                        f"The {kind} {tensor.name!r} has the parameter {name!r}, but flyweight does not do "
                        f"{_REFUSED[name]}."
                    )


def sticky_key_of(request: ModelInferRequest, call: Call, plan: Plan) -> bytes | None:
    """Return the key that keeps the sender on one variant; None when it sent none.

    The request's own parameter counts before the call's metadata. An empty text is no key: it is what a
    client sends that does not know its user.
    """
    # Asking whether the name is there first: reading a missing entry of a protobuf map would add it.
    if plan.sticky_parameter in request.parameters:
        parameter = request.parameters[plan.sticky_parameter]
        value = parameter.string_param or _number(parameter)
    else:
        value = call.metadata_value(plan.sticky_metadata)
    return sticky_key(request.model_name, value) if value else None


def _number(parameter: InferParameter) -> str | None:
    choice = parameter.WhichOneof("parameter_choice")
    if choice in {"int64_param", "uint64_param"}:
        return str(getattr(parameter, choice))
    return None
