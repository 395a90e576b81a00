"""ensemble_scheduling of a config.pbtxt: several models joined into one, checked as Triton checks it. Pure.

Source: ModelEnsembling in Triton's model_config.proto, the user guide's "Ensemble Models", and core's
model_config_utils.cc and ensemble_utils.cc.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelEnsembling, ModelInput, ModelOutput
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.completion import datatype_of_type
from flyweight.server.runtime.signature import FREE, Signature, TensorSpec


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One model of an ensemble; `version` is empty for its baseline.

    `inputs` are pairs of the model's input and the ensemble's tensor that fills it, `outputs` pairs of the
    model's output and the tensor that it fills.
    """

    model: str
    version: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EnsembleGraph:
    """The steps in an order in which each finds what it needs, and the ensemble's own tensors."""

    steps: tuple[EnsembleStep, ...]
    signature: Signature


def ensemble_graph(config: ModelConfig, model: str) -> EnsembleGraph:
    """Return the steps of an ensemble and what it takes and gives, in its steps' shapes.

    Raises:
        LoadFailed: a tensor is connected to nothing, twice, or in a circle, or a step names no model.
    """
    what = f"The ensemble {model!r}"
    if not config.input or not config.output:
        raise LoadFailed(
            f"{what} must list its inputs and outputs in config.pbtxt; they cannot be completed."
        )
    steps = [
        _step(step, model, f"{what}, in step {index},")
        for index, step in enumerate(config.ensemble_scheduling.step)
    ]
    batch_axes = 1 if config.max_batch_size > 0 else 0
    optional = {tensor.name for tensor in config.input if tensor.optional}
    signature = Signature(
        inputs=tuple(
            TensorSpec(
                tensor.name,
                datatype_of_type(tensor.data_type),
                _inner(tensor, batch_axes),
                optional=tensor.name in optional,
            )
            for tensor in config.input
        ),
        outputs=tuple(
            TensorSpec(tensor.name, datatype_of_type(tensor.data_type), _inner(tensor, batch_axes))
            for tensor in config.output
        ),
    )
    _require_single_writers(steps, signature, what)
    ordered = _in_order(steps, {spec.name for spec in signature.inputs}, what)
    _require_connected(ordered, signature, what)
    return EnsembleGraph(ordered, signature)


def check_steps(graph: EnsembleGraph, models: Sequence[Signature], max_batch_rows: int, what: str) -> None:
    """Check the ensemble's tensors against the models of its steps.

    Args:
        graph: the ensemble.
        models: the signature of every step's model, in the order of the steps.
        max_batch_rows: of the ensemble.
        what: opens the sentence of an error.

    Raises:
        LoadFailed: a step's model has no such tensor, another datatype or shape, or takes fewer rows.
    """
    known = {spec.name: spec for spec in graph.signature.inputs}
    outputs = {spec.name: spec for spec in graph.signature.outputs}
    for step, signature in zip(graph.steps, models, strict=True):
        if 0 < signature.max_batch_rows < max_batch_rows:
            raise LoadFailed(
                f"{what} takes {max_batch_rows} rows, and its step {step.model!r} takes "
                f"{signature.max_batch_rows}; lower max_batch_size, or raise that of the step."
            )
        inputs = {spec.name: spec for spec in signature.inputs}
        missing = [name for name in inputs if name not in dict(step.inputs) and not inputs[name].optional]
        if missing:
            raise LoadFailed(f"{what} gives its step {step.model!r} no {missing[0]!r}; add it to input_map.")
        for name, tensor in step.inputs:
            _require_alike(_find(inputs, name, step, what), known[tensor], tensor, what)
        made = {spec.name: spec for spec in signature.outputs}
        for name, tensor in step.outputs:
            spec = _find(made, name, step, what)
            if tensor in outputs:
                _require_alike(spec, outputs[tensor], tensor, what)
            known[tensor] = spec


def _step(step: ModelEnsembling.Step, model: str, what: str) -> EnsembleStep:
    if not step.model_name or not step.input_map or not step.output_map:
        raise LoadFailed(
            f"{what} must have a model_name, an input_map and an output_map; add what is missing."
        )
    if step.model_name == model:
        raise LoadFailed(f"{what} runs itself; name another model.")
    if step.model_namespace:
        raise LoadFailed(f"{what} names the namespace {step.model_namespace!r}, and there are none here.")
    if step.model_version < -1:
        raise LoadFailed(f"{what} names the version {step.model_version}; write a number, or -1 for any.")
    return EnsembleStep(
        model=step.model_name,
        # 0 is what a file says that does not mention it.
        version=str(step.model_version) if step.model_version > 0 else "",
        inputs=tuple(sorted(step.input_map.items())),
        outputs=tuple(sorted(step.output_map.items())),
    )


def _inner(tensor: ModelInput | ModelOutput, batch_axes: int) -> tuple[int, ...]:
    return (FREE,) * batch_axes + tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def _require_single_writers(steps: Sequence[EnsembleStep], signature: Signature, what: str) -> None:
    written = {spec.name for spec in signature.inputs}
    for step in steps:
        for _, tensor in step.outputs:
            if tensor in written:
                raise LoadFailed(f"{what} fills the tensor {tensor!r} twice; give one of them another name.")
            written.add(tensor)


def _in_order(steps: Sequence[EnsembleStep], there: set[str], what: str) -> tuple[EnsembleStep, ...]:
    """Return the steps so that each comes after those whose tensors it takes."""
    left, ordered, known = list(steps), list[EnsembleStep](), set(there)
    while left:
        ready = [step for step in left if all(tensor in known for _, tensor in step.inputs)]
        if not ready:
            lacking = sorted({tensor for step in left for _, tensor in step.inputs if tensor not in known})
            made = {tensor for step in left for _, tensor in step.outputs}
            reason = "which nothing fills" if lacking[0] not in made else "which hangs on itself"
            raise LoadFailed(f"{what} needs the tensor {lacking[0]!r}, {reason}; connect it.")
        for step in ready:
            known.update(tensor for _, tensor in step.outputs)
            ordered.append(step)
            left.remove(step)
    return tuple(ordered)


def _require_connected(steps: Sequence[EnsembleStep], signature: Signature, what: str) -> None:
    used = {tensor for step in steps for _, tensor in step.inputs}
    made = {tensor for step in steps for _, tensor in step.outputs}
    wanted = {spec.name for spec in signature.outputs}
    for spec in signature.inputs:
        if spec.name not in used:
            raise LoadFailed(
                f"{what} has the input {spec.name!r}, which no step takes; connect or remove it."
            )
    for name in sorted(wanted - made):
        raise LoadFailed(f"{what} has the output {name!r}, which no step fills; connect or remove it.")
    for name in sorted(made - used - wanted):
        raise LoadFailed(f"{what} fills the tensor {name!r}, which nothing uses; connect or remove it.")


def _find(specs: Mapping[str, TensorSpec], name: str, step: EnsembleStep, what: str) -> TensorSpec:
    spec = specs.get(name)
    if spec is None:
        raise LoadFailed(
            f"{what} maps {name!r} of its step {step.model!r}, which has no such tensor; it has "
            f"{', '.join(map(repr, specs))}."
        )
    return spec


def _require_alike(spec: TensorSpec, tensor: TensorSpec, name: str, what: str) -> None:
    fits = len(spec.shape) == len(tensor.shape) and all(
        FREE in (a, b) or a == b for a, b in zip(spec.shape, tensor.shape, strict=True)
    )
    if spec.datatype != tensor.datatype or not fits:
        raise LoadFailed(
            f"{what} connects its tensor {name!r}, {tensor.datatype} of {list(tensor.shape)}, to "
            f"{spec.name!r}, {spec.datatype} of {list(spec.shape)}; batch axes count. Correct one of them."
        )
