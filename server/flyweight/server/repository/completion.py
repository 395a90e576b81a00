"""Completing a model configuration from the session, and narrowing the session's signature by it. Pure.

Like Triton's auto-complete: where config.pbtxt says nothing, inputs and outputs are the session's; when the
first axis of all of them is free it is the batch axis, and dims leave it out. Triton then allows 4 rows a
request unless told otherwise (its backend's default-max-batch-size); here it is 1024, because rows cost no
more than memory when requests are not queued for batching, and callers score whole data sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from flyweight.protos.inference.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelOutput,
    ModelVersionPolicy,
)
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.reshaping import Declared, Reshape, Reshapes, reshapes_of
from flyweight.server.runtime.signature import FREE, Signature, TensorSpec

DEFAULT_MAX_BATCH_ROWS: Final = 1024


class _Typed(Declared, Protocol):
    """What ModelInput and ModelOutput have in common."""

    @property
    def data_type(self) -> "DataType.ValueType": ...


def complete(config: ModelConfig | None, model: str, session: Signature) -> tuple[ModelConfig, Signature]:
    """Return the whole configuration, and the signature that requests are checked against.

    Args:
        config: what the repository says; None when it says nothing.
        model: the model's name.
        session: the session's own inputs and outputs, less those that callers do not see.

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
    reshapes = reshapes_of(completed, model)
    narrowing = _Narrowing(f"config.pbtxt of {model}", batch_axes, reshapes)
    signature = Signature(
        inputs=narrowing.inputs(completed, inputs),
        outputs=narrowing.outputs(completed, session.outputs),
        max_batch_rows=completed.max_batch_size,
    )
    completed.name, completed.platform, completed.backend = model, "onnxruntime_onnx", "onnxruntime"
    add_version_policy(completed)
    if not completed.default_model_filename:
        completed.default_model_filename = "model.onnx"
    if not completed.input:
        completed.input.extend(_declare_input(spec, batch_axes) for spec in signature.inputs)
    if not completed.output:
        completed.output.extend(_declare_output(spec, batch_axes) for spec in signature.outputs)
    return completed, signature


def add_version_policy(config: ModelConfig) -> None:
    """Write down the policy that holds where none is written: the latest version."""
    if not config.HasField("version_policy"):
        config.version_policy.CopyFrom(ModelVersionPolicy(latest=ModelVersionPolicy.Latest(num_versions=1)))


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


class _Narrowing:
    """Narrows the session's tensors to what one configuration declares; `what` names it in sentences."""

    def __init__(self, what: str, batch_axes: int, reshapes: Reshapes) -> None:
        self._what = what
        self._batch_axes = batch_axes
        self._reshapes = reshapes

    def inputs(self, config: ModelConfig, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        what = f"{self._what}: the input"
        by_name = {spec.name: spec for spec in specs}
        for declared in config.input:
            if declared.optional and declared.name in by_name and not by_name[declared.name].optional:
                raise LoadFailed(
                    f"{what} {declared.name!r} is optional, but the model cannot run without it; export it "
                    "with a default, or remove `optional`."
                )
        narrowed = self._all(config.input, specs, self._reshapes.inputs, what)
        missing = [name for name in by_name if config.input and name not in {s.name for s in narrowed}]
        if missing:
            raise LoadFailed(f"{what} {missing[0]!r} is not listed; list every input, or none.")
        return narrowed

    def outputs(self, config: ModelConfig, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return self._all(config.output, specs, self._reshapes.outputs, f"{self._what}: the output")

    def _all(
        self,
        declared: Iterable[_Typed],
        specs: tuple[TensorSpec, ...],
        reshapes: Mapping[str, Reshape],
        what: str,
    ) -> tuple[TensorSpec, ...]:
        """Return the tensors that are declared, narrowed by that; all as they are when none is declared."""
        by_name = {tensor.name: tensor for tensor in declared}
        if not by_name:
            return specs
        known = [spec.name for spec in specs]
        for name in by_name:
            if name not in known:
                raise LoadFailed(
                    f"{what} {name!r} is not one of the model's ({', '.join(known)}); correct it."
                )
        return tuple(
            self._narrow(by_name[spec.name], spec, reshapes.get(spec.name), what)
            for spec in specs
            if spec.name in by_name
        )

    def _narrow(self, declared: _Typed, spec: TensorSpec, reshape: Reshape | None, what: str) -> TensorSpec:
        wanted = DataType.Name(declared.data_type)
        if wanted != type_of(spec.datatype):
            raise LoadFailed(
                f"{what} {spec.name!r} is {wanted}, but the model's is {type_of(spec.datatype)}."
            )
        inner = declared.dims if reshape is None else reshape.inner
        shape = (FREE,) * self._batch_axes + tuple(inner)
        fits = len(shape) == len(spec.shape) and all(
            FREE in (mine, theirs) or mine == theirs for mine, theirs in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise LoadFailed(
                f"{what} {spec.name!r} has dims {list(inner)}, but the model has {list(spec.shape)}; "
                "dims leave out the batch axis if, and only if, max_batch_size is above 0."
            )
        narrowed = tuple(
            theirs if mine == FREE else mine for mine, theirs in zip(shape, spec.shape, strict=True)
        )
        # What the model fixes where both shapes are free is fixed for callers, too.
        return replace(spec, shape=narrowed if reshape is None else reshape.outward(narrowed))


def type_of(datatype: str) -> str:
    """Return the name of Triton's DataType for a datatype of the Open Inference Protocol."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def datatype_of_type(data_type: "DataType.ValueType") -> str:
    """Return the datatype of the Open Inference Protocol for Triton's DataType."""
    name = DataType.Name(data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _declare_input(spec: TensorSpec, batch_axes: int) -> ModelInput:
    return ModelInput(
        name=spec.name, data_type=DataType.Value(type_of(spec.datatype)), dims=spec.shape[batch_axes:]
    )


def _declare_output(spec: TensorSpec, batch_axes: int) -> ModelOutput:
    return ModelOutput(
        name=spec.name, data_type=DataType.Value(type_of(spec.datatype)), dims=spec.shape[batch_axes:]
    )
