"""Tensors of a request or response as numpy arrays."""

from collections.abc import Sequence
from typing import TypeAlias

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors.bfloat16 import widen_bfloat16
from flyweight.protos.tensors.datatypes import BFLOAT16, Array
from flyweight.protos.tensors.limits import UNLIMITED, TensorLimits
from flyweight.protos.tensors.raw import decode_raw
from flyweight.protos.tensors.strings import Buffer
from flyweight.protos.tensors.typed import decode_typed

TensorMessage: TypeAlias = ModelInferRequest.InferInputTensor | ModelInferResponse.InferOutputTensor


def decode_tensors(
    specs: Sequence[TensorMessage],
    raw: Sequence[Buffer],
    limits: TensorLimits = UNLIMITED,
    *,
    widen: bool = True,
) -> dict[str, Array]:
    """Return the tensors of one message as arrays by name, in the message's order.

    Args:
        specs: the message's `inputs` or `outputs`.
        raw: its `raw_input_contents` or `raw_output_contents`; when it has entries it must have one for
            each tensor, and no tensor may have contents of its own.
        limits: what is too much.
        widen: whether BF16 becomes float32, which numpy can calculate with; else it stays as it came, in
            arrays of `BFLOAT16`.

    Returns:
        Arrays of the types in `DATATYPES` and the shapes that were sent. Those made of raw numbers are
        read-only views of `raw`.

    Raises:
        TensorError: the message contradicts itself or the protocol, or passes a limit; the text names the
            tensor.
    """
    if len(specs) > limits.tensors:
        raise TensorError(
            f"There are {len(specs)} tensors, and {limits.tensors} are the most in one message."
        )
    arrays = _decode_all_raw(specs, raw, limits) if raw else _decode_all_typed(specs, limits)
    if len(arrays) != len(specs):
        raise twice([spec.name for spec in specs])
    if widen:
        for name, array in arrays.items():
            if array.dtype == BFLOAT16:
                arrays[name] = widen_bfloat16(array)
    return arrays


def _decode_all_typed(specs: Sequence[TensorMessage], limits: TensorLimits) -> dict[str, Array]:
    return {
        spec.name: decode_typed(spec.name, spec.datatype, tuple(spec.shape[:]), spec.contents, limits)
        for spec in specs
    }


def _decode_all_raw(
    specs: Sequence[TensorMessage], raw: Sequence[Buffer], limits: TensorLimits
) -> dict[str, Array]:
    if len(raw) != len(specs):
        raise _miscounted(specs, len(raw))
    arrays: dict[str, Array] = {}
    # A slice of a repeated field is a list, and made in half the time that iterating takes.
    for spec, data in zip(specs, raw, strict=True):
        name = spec.name
        if spec.HasField("contents"):
            raise _mixed(name)
        arrays[name] = decode_raw(name, spec.datatype, tuple(spec.shape[:]), data, limits)
    return arrays


def twice(names: Sequence[str]) -> TensorError:
    """Return the error for a message that has a tensor of one name more than once."""
    name = next(name for name in names if names.count(name) > 1)
    return TensorError(f"Tensor {name!r} comes twice; send each tensor once.")


def _mixed(name: str) -> TensorError:
    return TensorError(
        f"Tensor {name!r} has typed contents in a message with raw contents; send all tensors one way or the "
        "other."
    )


def _miscounted(specs: Sequence[TensorMessage], raw: int) -> TensorError:
    for spec in specs:
        if spec.HasField("contents"):
            return _mixed(spec.name)
    missing = f"tensor {specs[raw].name!r} has none" if raw < len(specs) else "some belong to none"
    return TensorError(
        f"There are {raw} raw contents for {len(specs)} tensors, so {missing}; send one for each."
    )
