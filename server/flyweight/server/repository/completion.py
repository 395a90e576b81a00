"""Completing a model configuration from the session, and narrowing the session's signature by it. Pure.

Like Triton's auto-complete: where config.pbtxt says nothing, inputs and outputs are the session's; when the
first axis of all of them is free it is the batch axis, and dims leave it out. Triton then allows 4 rows a
request unless told otherwise (its backend's default-max-batch-size); here it is 1024, because rows cost no
more than memory when requests are not queued for batching, and callers score whole data sets.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from flyweight.protos.inference.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelOutput,
    ModelVersionPolicy,
)
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.signature import FREE, Signature, TensorSpec

DEFAULT_MAX_BATCH_ROWS: Final = 1024


class _Declared(Protocol):
    """What ModelInput and ModelOutput have in common."""

    @property
    def name(self) -> str: ...
    @property
    def data_type(self) -> "DataType.ValueType": ...
    @property
    def dims(self) -> Sequence[int]: ...


def complete(config: ModelConfig | None, model: str, session: Signature) -> tuple[ModelConfig, Signature]:
    """Return the whole configuration, and the signature that requests are checked against.

    Args:
        config: what the repository says; None when it says nothing.
        model: the model's name.
        session: the session's own inputs and outputs.

    Raises:
        LoadFailed: the configuration contradicts the session.
    """
    completed = ModelConfig()
    if config is not None:
        completed.CopyFrom(config)
    listed = {tensor.name for tensor in completed.input}
    # Initializers that may be overridden are the model's weights, unless somebody lists them as inputs.
    inputs = tuple(spec for spec in session.inputs if not spec.optional or spec.name in listed)
    completed.max_batch_size = _max_batch(completed, model, inputs, session.outputs)
    batch_axes = 1 if completed.max_batch_size else 0
    signature = Signature(
        inputs=_narrow_all(
            completed.input, inputs, batch_axes, f"config.pbtxt of {model}: the input", must_list_all=True
        ),
        outputs=_narrow_all(
            completed.output, session.outputs, batch_axes, f"config.pbtxt of {model}: the output"
        ),
        max_batch_rows=completed.max_batch_size,
    )
    completed.name, completed.platform, completed.backend = model, "onnxruntime_onnx", "onnxruntime"
    if not completed.HasField("version_policy"):
        completed.version_policy.CopyFrom(
            ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=1))
        )
    if not completed.default_model_filename:
        completed.default_model_filename = "model.onnx"
    if not completed.input:
        completed.input.extend(_declare_input(spec, batch_axes) for spec in signature.inputs)
    if not completed.output:
        completed.output.extend(_declare_output(spec, batch_axes) for spec in signature.outputs)
    return completed, signature


def _max_batch(
    config: ModelConfig, model: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> int:
    batchable = bool(inputs) and all(spec.shape[:1] == (FREE,) for spec in (*inputs, *outputs))
    if config.max_batch_size < 0:
        raise LoadFailed(f"The config.pbtxt of {model} sets max_batch_size to {config.max_batch_size}.")
    if config.max_batch_size and not batchable:
        raise LoadFailed(
            f"The config.pbtxt of {model} sets max_batch_size to {config.max_batch_size}, but the first axis "
            "of its inputs and outputs is not free; set it to 0, or export the model with a free batch axis."
        )
    # Whoever lists tensors has written dims with the batch axis or without, and so has decided.
    if config.max_batch_size or config.input or config.output:
        return config.max_batch_size
    return DEFAULT_MAX_BATCH_ROWS if batchable else 0


def _narrow_all(
    declared: Iterable[_Declared],
    specs: tuple[TensorSpec, ...],
    batch_axes: int,
    what: str,
    *,
    must_list_all: bool = False,
) -> tuple[TensorSpec, ...]:
    """Return the tensors that are declared, narrowed by that; all as they are when none is declared."""
    by_name = {tensor.name: tensor for tensor in declared}
    if not by_name:
        return specs
    known = [spec.name for spec in specs]
    for name in by_name:
        if name not in known:
            raise LoadFailed(f"{what} {name!r} is not one of the model's ({', '.join(known)}); correct it.")
    missing = [name for name in known if name not in by_name]
    if must_list_all and missing:
        raise LoadFailed(f"{what} {missing[0]!r} is not listed; list every input, or none.")
    return tuple(
        _narrow(by_name[spec.name], spec, batch_axes, what) for spec in specs if spec.name in by_name
    )


def _narrow(declared: _Declared, spec: TensorSpec, batch_axes: int, what: str) -> TensorSpec:
    wanted = DataType.Name(declared.data_type)
    if wanted != type_of(spec.datatype):
        raise LoadFailed(f"{what} {spec.name!r} is {wanted}, but the model's is {type_of(spec.datatype)}.")
    shape = (FREE,) * batch_axes + tuple(declared.dims)
    fits = len(shape) == len(spec.shape) and all(
        FREE in (mine, theirs) or mine == theirs for mine, theirs in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise LoadFailed(
            f"{what} {spec.name!r} has dims {list(declared.dims)}, but the model has {list(spec.shape)}; "
            "dims leave out the batch axis if, and only if, max_batch_size is above 0."
        )
    narrowed = tuple(theirs if mine == FREE else mine for mine, theirs in zip(shape, spec.shape, strict=True))
    return TensorSpec(spec.name, spec.datatype, narrowed, optional=spec.optional)


def type_of(datatype: str) -> str:
    """Return the name of Triton's DataType for a datatype of the Open Inference Protocol."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _declare_input(spec: TensorSpec, batch_axes: int) -> ModelInput:
    return ModelInput(
        name=spec.name, data_type=DataType.Value(type_of(spec.datatype)), dims=spec.shape[batch_axes:]
    )


def _declare_output(spec: TensorSpec, batch_axes: int) -> ModelOutput:
    return ModelOutput(
        name=spec.name, data_type=DataType.Value(type_of(spec.datatype)), dims=spec.shape[batch_axes:]
    )
