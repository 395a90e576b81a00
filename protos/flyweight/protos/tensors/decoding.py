"""Tensors of a request or response as numpy arrays."""

from collections.abc import Sequence
from typing import TypeAlias

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors.datatypes import Array
from flyweight.protos.tensors.raw import decode_raw
from flyweight.protos.tensors.typed import decode_typed

TensorMessage: TypeAlias = ModelInferRequest.InferInputTensor | ModelInferResponse.InferOutputTensor


def decode_tensors(specs: Sequence[TensorMessage], raw: Sequence[bytes | memoryview]) -> dict[str, Array]:
    """Return the tensors of one message as arrays by name, in the message's order.

    Args:
        specs: the message's `inputs` or `outputs`.
        raw: its `raw_input_contents` or `raw_output_contents`; when it has entries it must have one for
            each tensor, and no tensor may have contents of its own.

    Returns:
        Arrays of the types in `DATATYPES` and the shapes that were sent. Those made of raw numbers are
        read-only views of `raw`.

    Raises:
        TensorError: the message contradicts itself or the protocol; the text names the tensor.
    """
    if raw:
        arrays = _decode_all_raw(specs, raw)
    else:
        arrays = {
            spec.name: decode_typed(spec.name, spec.datatype, tuple(spec.shape), spec.contents)
            for spec in specs
        }
    if len(arrays) != len(specs):
        names = [spec.name for spec in specs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TensorError(f"Tensor {twice!r} comes twice; send each tensor once.")
    return arrays


def _decode_all_raw(specs: Sequence[TensorMessage], raw: Sequence[bytes | memoryview]) -> dict[str, Array]:
    if len(raw) != len(specs):
        raise _miscounted(specs, len(raw))
    arrays: dict[str, Array] = {}
    for spec, data in zip(specs, raw, strict=True):
        name = spec.name
        if spec.HasField("contents"):
            raise _mixed(name)
        arrays[name] = decode_raw(name, spec.datatype, tuple(spec.shape), data)
    return arrays


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
