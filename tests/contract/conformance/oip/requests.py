"""ModelInferRequests, right ones and deliberately wrong ones."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest
from oip.encoding import Array, put_typed, raw

A: Any = np.array([[1, 2, 3, 4]], "<f4")
B: Any = np.array([[10, 20, 30, 40]], "<f4")


def parameter(value: bool | float | str) -> InferParameter:
    """Return a parameter in the field that suits its type."""
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)


def put_parameters(where: Any, values: Mapping[str, bool | int | float | str]) -> None:
    """Write parameters into the map `where`."""
    for name, value in values.items():
        where[name].CopyFrom(parameter(value))


def request(model: str, *, version: str = "", identity: str = "", outputs: Iterable[str] = ()) -> Any:
    """Return a request without inputs."""
    made = ModelInferRequest(model_name=model, model_version=version, id=identity)
    for name in outputs:
        made.outputs.add(name=name)
    return made


def add_raw(to: Any, name: str, datatype: str, array: Array) -> Any:
    """Add an input whose elements travel as raw bytes; return the input."""
    to.raw_input_contents.append(raw(datatype, array))
    return to.inputs.add(name=name, datatype=datatype, shape=array.shape)


def add_typed(to: Any, name: str, datatype: str, array: Array) -> Any:
    """Add an input whose elements travel in typed contents; return the input."""
    tensor = to.inputs.add(name=name, datatype=datatype, shape=array.shape)
    put_typed(tensor.contents, datatype, array)
    return tensor


def identity_request(datatype: str, array: Array, *, typed: bool = False, identity: str = "") -> Any:
    """Return a request to the identity model of a datatype."""
    made = request(f"identity_{datatype.lower()}", identity=identity)
    (add_typed if typed else add_raw)(made, "INPUT", datatype, array)
    return made


def add_sub_request(
    a: Array = A, b: Array = B, *, version: str = "", identity: str = "", outputs: Iterable[str] = ()
) -> Any:
    """Return a request for a + b (OUTPUT0) and a - b (OUTPUT1)."""
    made = request("add_sub", version=version, identity=identity, outputs=outputs)
    add_raw(made, "INPUT0", "FP32", a)
    add_raw(made, "INPUT1", "FP32", b)
    return made
