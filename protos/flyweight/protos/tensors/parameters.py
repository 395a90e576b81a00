"""The parameters that go with requests, responses and their tensors, as plain values."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferParameter

ParameterValue: TypeAlias = bool | int | float | str
InferParameters: TypeAlias = Mapping[str, InferParameter]

_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)


def parameter(value: ParameterValue) -> InferParameter:
    """Return a value as a parameter; a whole number as int64, or as uint64 where only that holds it.

    Raises:
        TensorError: the value is of no type that a parameter can have, or a number no 64 bits can hold.
    """
    # bool first: it is an int to Python, and is not to the protocol.
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        if value in _INT64:
            return InferParameter(int64_param=value)
        if value in _UINT64:
            return InferParameter(uint64_param=value)
        raise TensorError(f"A parameter cannot be {value}: whole numbers have 64 bits.")
    if isinstance(value, float):
        return InferParameter(double_param=value)
    if isinstance(value, str):
        return InferParameter(string_param=value)
    raise TensorError(f"A parameter cannot be {type(value).__name__}; use bool, int, float or str.")


def parameters_to_dict(parameters: Mapping[str, InferParameter]) -> dict[str, ParameterValue]:
    """Return the parameters of a message as plain values; those without a value are left out."""
    values: dict[str, ParameterValue] = {}
    for name, entry in parameters.items():
        choice = entry.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(entry, choice)
    return values
