"""Control inputs: what tells a model that a sequence starts or ends, that a row is one, and whose it is.

Source: ModelSequenceBatching.Control in Triton's model_config.proto, and core's model_config_utils.cc.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from flyweight.protos.inference.model_config_pb2 import ModelSequenceBatching
from flyweight.protos.tensors import DATATYPES, Array
from flyweight.server.errors import InvalidRequest, LoadFailed
from flyweight.server.repository.completion import datatype_of_type
from flyweight.server.runtime.signature import FREE, TensorSpec

SequenceId = int | str

_Control = ModelSequenceBatching.Control

_ID_TYPES: Final = frozenset({"UINT64", "INT64", "UINT32", "INT32", "BYTES"})


class Told(StrEnum):
    """What a control input tells the model."""

    START = "CONTROL_SEQUENCE_START"
    END = "CONTROL_SEQUENCE_END"
    READY = "CONTROL_SEQUENCE_READY"
    ID = "CONTROL_SEQUENCE_CORRID"


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """One control input: what it tells, its datatype and shape, and its values for false and true."""

    name: str
    told: Told
    datatype: str
    shape: tuple[int, ...]
    values: tuple[float, ...] = (0, 1)

    def tell(self, sequence_id: SequenceId, *, start: bool, end: bool) -> Array:
        """Return the input for one request.

        Raises:
            InvalidRequest: the id is one that the model's datatype does not hold.
        """
        if self.told is Told.ID:
            return self._tell_id(sequence_id)
        is_true = {Told.START: start, Told.END: end, Told.READY: True}[self.told]
        return np.full(self.shape, self.values[is_true], dtype=DATATYPES[self.datatype])

    def _tell_id(self, sequence_id: SequenceId) -> Array:
        if self.datatype == "BYTES":
            return np.full(self.shape, str(sequence_id).encode(), dtype=object)
        limits = np.iinfo(DATATYPES[self.datatype])
        if isinstance(sequence_id, str) or not limits.min <= sequence_id <= limits.max:
            raise InvalidRequest(
                f"The sequence_id {sequence_id!r} is not one of this model's, which are {self.datatype}."
            )
        return np.full(self.shape, sequence_id, dtype=DATATYPES[self.datatype])


def read_controls(
    batching: ModelSequenceBatching, inputs: Mapping[str, TensorSpec], what: str
) -> tuple[ControlSpec, ...]:
    """Return the control inputs of a model.

    Args:
        batching: what the configuration says.
        inputs: the session's own inputs by name.
        what: opens the sentence of an error.

    Raises:
        LoadFailed: an input is not the model's, tells nothing or two things, or has another datatype.
    """
    specs: list[ControlSpec] = []
    for given in batching.control_input:
        if len(given.control) != 1:
            raise LoadFailed(f"{what} has the control input {given.name!r}, which must tell one thing.")
        spec = inputs.get(given.name)
        if spec is None:
            raise LoadFailed(
                f"{what} has the control input {given.name!r}, which the model does not have; correct it."
            )
        specs.append(_control(given.control[0], spec, what))
    told = [spec.told for spec in specs]
    for kind in set(told):
        if told.count(kind) > 1:
            raise LoadFailed(f"{what} has two control inputs of {kind.value}; keep one.")
    return tuple(specs)


def _control(given: _Control, spec: TensorSpec, what: str) -> ControlSpec:
    told = Told(_Control.Kind.Name(given.kind))
    values: list[tuple[str, tuple[float, ...]]] = [
        (datatype, tuple(pair))
        for datatype, pair in (
            ("INT32", given.int32_false_true),
            ("FP32", given.fp32_false_true),
            ("BOOL", given.bool_false_true),
        )
        if pair
    ]
    pair: tuple[float, ...]
    if told is Told.ID:
        datatype, pair = datatype_of_type(given.data_type), ()
        if values or datatype not in _ID_TYPES:
            raise LoadFailed(
                f"{what} must give the control input {spec.name!r} a data_type of "
                f"{', '.join(sorted(_ID_TYPES))}, and no values."
            )
    else:
        if len(values) != 1 or len(values[0][1]) != 2:
            raise LoadFailed(
                f"{what} must give the control input {spec.name!r} two values in one of int32_false_true, "
                "fp32_false_true and bool_false_true."
            )
        datatype, pair = values[0]
    if datatype != spec.datatype:
        raise LoadFailed(
            f"{what} fills the control input {spec.name!r} with {datatype}, and the model has "
            f"{spec.datatype}; correct it."
        )
    if any(length not in (FREE, 1) for length in spec.shape):
        raise LoadFailed(
            f"{what} has the control input {spec.name!r}, and the model's is {list(spec.shape)}; "
            "it must hold one element a row."
        )
    return ControlSpec(spec.name, told, datatype, (1,) * len(spec.shape), tuple(pair) or (0, 1))
