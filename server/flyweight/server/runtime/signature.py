"""What a variant takes and gives, and the check of a request against it. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.server.errors import InvalidRequest

Array = NDArray[Any]

# flyweight.protos.tensors.BFLOAT16, of which worker processes know nothing: it would bring them protobuf.
BFLOAT16: Final = np.dtype([("bfloat16", "<u2")])

FREE: Final = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, its Open Inference Protocol datatype and its shape.

    `shape` is the shape of the array that is sent, batch axis included, -1 where a length is free.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a variant, in the model's order.

    `max_batch_rows` is 0 when the first axis is not a batch axis; else the most rows one request may hold.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_rows: int = 0

    def check(self, inputs: Mapping[str, Array], outputs: Collection[str] = ()) -> int:
        """Check a request's arrays and the names of the outputs it wants; return its rows.

        Rows are the length of the batch axis, and 1 for a model without one. An empty `outputs` means all.

        Raises:
            InvalidRequest: a name, datatype, rank or length does not fit; the sentence names the tensor.
        """
        self._check_names(inputs, outputs)
        for spec in self.inputs:
            if spec.name in inputs:
                _check_tensor(spec, inputs[spec.name])
        return self._check_rows(inputs) if self.max_batch_rows else 1

    def _check_names(self, inputs: Mapping[str, Array], outputs: Collection[str]) -> None:
        known = {spec.name for spec in self.inputs}
        for name in inputs:
            if name not in known:
                raise InvalidRequest(f"There is no input {name!r}; the inputs are {_listed(self.inputs)}.")
        for spec in self.inputs:
            if spec.name not in inputs and not spec.optional:
                raise InvalidRequest(
                    f"The input {spec.name!r} is missing; send {spec.datatype} of shape {_shown(spec)}."
                )
        given = {spec.name for spec in self.outputs}
        for name in outputs:
            if name not in given:
                raise InvalidRequest(f"There is no output {name!r}; the outputs are {_listed(self.outputs)}.")

    def _check_rows(self, inputs: Mapping[str, Array]) -> int:
        lengths: dict[str, int] = {name: array.shape[0] for name, array in inputs.items()}
        if not lengths:
            return 1
        first, rows = next(iter(lengths.items()))
        for name, length in lengths.items():
            if length != rows:
                raise InvalidRequest(
                    f"The inputs {first!r} and {name!r} have {rows} and {length} rows; send the same number."
                )
        if rows == 0:
            raise InvalidRequest(f"The input {first!r} has no rows; send at least one.")
        if rows > self.max_batch_rows:
            raise InvalidRequest(
                f"The input {first!r} has {rows} rows where at most {self.max_batch_rows} are allowed; "
                "send smaller batches, or raise max_batch_size in the model's config.pbtxt."
            )
        return rows


def _check_tensor(spec: TensorSpec, array: Array) -> None:
    # Not at the top: a worker process checks nothing, and the protobuf library is 3 MB in each of them.
    from flyweight.protos.tensors import datatype_of

    datatype = datatype_of(array)
    if datatype != spec.datatype:
        raise InvalidRequest(f"The input {spec.name!r} is {datatype} where {spec.datatype} is expected.")
    fits = len(array.shape) == len(spec.shape) and all(
        expected in (FREE, length) for expected, length in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"The input {spec.name!r} has shape {list(array.shape)} where {_shown(spec)} is expected."
        )


def _shown(spec: TensorSpec) -> str:
    return str(list(spec.shape))


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(repr(spec.name) for spec in specs) or "none"
