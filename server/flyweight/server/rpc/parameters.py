"""What the parameters of a ModelInferRequest ask for: the sticky key, and the options of Triton's extensions.

Sources: Triton's parameters, sequence, schedule policy and binary tensor data extensions. Parameters that
nobody reserved are the callers' own, and may be sticky keys, so they are let pass.
"""

from dataclasses import dataclass
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest
from flyweight.protos.tensors import InferParameters
from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc.call import Call
from flyweight.server.traffic import Plan, sticky_key

_MICROSECONDS: Final = 1e-6
_NUMBERS: Final = frozenset({"int64_param", "uint64_param"})

# Reserved by the protocol and of no effect over gRPC, where contents are always binary.
_BINARY: Final = ("binary_data", "binary_data_output")


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What a request asks for besides its tensors.

    Attributes:
        priority: 1 is the highest; 0 leaves it to the model.
        timeout_seconds: how long the request may wait for its turn; None where it does not say.
        sequence_id: which sequence the request belongs to; 0 or "" where to none.
        sequence_start: whether it is the sequence's first.
        sequence_end: whether it is the sequence's last.
        empty_final_response: whether a stream is to end each request with a response that says so.
    """

    priority: int = 0
    timeout_seconds: float | None = None
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    empty_final_response: bool = False


_NO_OPTIONS: Final = InferOptions()


def read_options(request: ModelInferRequest) -> InferOptions:
    """Return what a request's parameters ask for.

    Raises:
        InvalidRequest: a reserved parameter is of the wrong type or out of its range.
    """
    parameters = request.parameters
    if not parameters:
        return _NO_OPTIONS
    for name in _BINARY:
        _flag(parameters, name)
    microseconds = _number(parameters, "timeout")
    options = InferOptions(
        priority=_number(parameters, "priority"),
        timeout_seconds=microseconds * _MICROSECONDS if microseconds else None,
        sequence_id=_sequence_id(parameters),
        sequence_start=_flag(parameters, "sequence_start"),
        sequence_end=_flag(parameters, "sequence_end"),
        empty_final_response=_flag(parameters, "triton_enable_empty_final_response"),
    )
    if (options.sequence_start or options.sequence_end) and not options.sequence_id:
        raise InvalidRequest(
            "The request is the first or last of a sequence and has no 'sequence_id'; send one above 0, or a "
            "text that is not empty."
        )
    return options


def _number(parameters: InferParameters, name: str) -> int:
    """Return a whole number that is not negative; 0 where it is not sent."""
    # Asking whether the name is there first: reading a missing entry of a protobuf map would add it.
    if name not in parameters:
        return 0
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice not in _NUMBERS:
        raise _mistyped(name, "a whole number", choice)
    value = int(getattr(parameters[name], choice))
    if value < 0:
        raise InvalidRequest(f"The parameter {name!r} is {value}; send 0 or more.")
    return value


def _flag(parameters: InferParameters, name: str) -> bool:
    if name not in parameters:
        return False
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice != "bool_param":
        raise _mistyped(name, "true or false", choice)
    return parameters[name].bool_param


def _sequence_id(parameters: InferParameters) -> int | str:
    if "sequence_id" not in parameters:
        return 0
    parameter = parameters["sequence_id"]
    choice = parameter.WhichOneof("parameter_choice")
    if choice == "string_param":
        return parameter.string_param
    if choice in _NUMBERS:
        return int(getattr(parameter, choice))
    raise _mistyped("sequence_id", "a whole number or a text", choice)


def _mistyped(name: str, wanted: str, choice: str | None) -> InvalidRequest:
    sent = "nothing" if choice is None else f"a {choice.removesuffix('_param')}"
    return InvalidRequest(f"The parameter {name!r} is {sent}; send {wanted}.")


def sticky_key_of(request: ModelInferRequest, call: Call, plan: Plan) -> bytes | None:
    """Return the key that keeps the sender on one variant; None when it sent none.

    The request's own parameter counts before the call's metadata. An empty text is no key: it is what a
    client sends that does not know its user.
    """
    # Asking whether the name is there first: reading a missing entry of a protobuf map would add it.
    if plan.sticky_parameter in request.parameters:
        parameter = request.parameters[plan.sticky_parameter]
        value = parameter.string_param or _as_text(parameter)
    else:
        value = call.metadata_value(plan.sticky_metadata)
    return sticky_key(request.model_name, value) if value else None


def _as_text(parameter: InferParameter) -> str | None:
    choice = parameter.WhichOneof("parameter_choice")
    if choice in _NUMBERS:
        return str(getattr(parameter, choice))
    return None
