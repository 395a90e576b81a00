"""sequence_batching of a config.pbtxt, checked against the model's own tensors as Triton checks it.

Source: ModelSequenceBatching in Triton's model_config.proto, the user guide's "Implicit State Management",
and core's sequence_batch_scheduler.cc.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelSequenceBatching
from flyweight.protos.tensors import Array
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.completion import datatype_of_type
from flyweight.server.repository.files import read_tensor_file
from flyweight.server.repository.scan import STATE_FOLDER
from flyweight.server.repository.warmup import zeros
from flyweight.server.runtime.signature import FREE, Signature, TensorSpec
from flyweight.server.sequences.controls import ControlSpec, read_controls

# Triton's default for max_sequence_idle_microseconds (model_config.proto).
_IDLE_SECONDS: Final = 1.0

# How many sequences live at one time where the configuration does not say: their states are kept in memory.
_MOST_SEQUENCES: Final = 1024


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A tensor that one request of a sequence hands to the next, and what the first one gets."""

    input_name: str
    output_name: str
    initial: Array


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """Everything that is known of a model's sequences before there is one.

    `idle_seconds` after its last request a sequence is forgotten; `most` of them live at one time.
    """

    controls: tuple[ControlSpec, ...]
    states: tuple[StateSpec, ...]
    idle_seconds: float
    most: int

    @property
    def hidden_inputs(self) -> frozenset[str]:
        """Return the inputs that the server fills."""
        return frozenset([control.name for control in self.controls] + [it.input_name for it in self.states])

    def opening_inputs(self) -> dict[str, Array]:
        """Return what the server fills in for the first request of a sequence, to try the model with."""
        controls = {control.name: control.tell(1, start=True, end=False) for control in self.controls}
        return {**controls, **{state.input_name: state.initial for state in self.states}}

    @property
    def state_outputs(self) -> tuple[str, ...]:
        """Return the outputs that the next request of the sequence gets."""
        return tuple(state.output_name for state in self.states)


def sequences_of(
    config: ModelConfig | None, model: str, folder: Path, session: Signature
) -> SequenceSpec | None:
    """Return what a configuration says of sequences; None when it says nothing.

    Args:
        config: what the repository says.
        model: the model's name.
        folder: its folder; files of initial states lie in `initial_state` there.
        session: the session's own inputs and outputs.

    Raises:
        LoadFailed: the configuration contradicts itself or the session, or asks for what is not done.
    """
    if config is None or not config.HasField("sequence_batching"):
        return None
    what = f"The config.pbtxt of {model}"
    batching = config.sequence_batching
    _require_supported(config, what)
    inputs = {spec.name: spec for spec in session.inputs}
    outputs = {spec.name: spec for spec in session.outputs}
    batch_axes = 1 if config.max_batch_size else 0
    states = [
        _state(each, batch_axes, inputs, outputs, folder / STATE_FOLDER, what) for each in batching.state
    ]
    spec = SequenceSpec(
        controls=read_controls(batching, inputs, what),
        states=tuple(states),
        idle_seconds=batching.max_sequence_idle_microseconds * 1e-6 or _IDLE_SECONDS,
        most=_most(config),
    )
    names = [*spec.hidden_inputs, *spec.state_outputs]
    if len(spec.hidden_inputs) != len(spec.controls) + len(states) or len(set(names)) != len(names):
        raise LoadFailed(f"{what} uses a tensor of its sequence_batching twice; each has one purpose.")
    return spec


def _most(config: ModelConfig) -> int:
    """Return how many sequences live at one time: the candidates of all instances, where they are bounded."""
    candidates = config.sequence_batching.oldest.max_candidate_sequences
    instances = sum(max(1, group.count) for group in config.instance_group) or 1
    return candidates * instances if candidates > 0 else _MOST_SEQUENCES


def _require_supported(config: ModelConfig, what: str) -> None:
    batching = config.sequence_batching
    if batching.iterative_sequence:
        raise LoadFailed(f"{what} asks for iterative sequences, and each request is run once here.")
    if config.response_cache.enable:
        raise LoadFailed(f"{what} asks for a response_cache, and answers of sequences hang on their state.")
    if not 0.0 <= batching.direct.minimum_slot_utilization <= 1.0:
        raise LoadFailed(
            f"{what} sets minimum_slot_utilization to {batching.direct.minimum_slot_utilization:g}; it is a "
            "share from 0 to 1."
        )
    if batching.direct.minimum_slot_utilization > 0:
        raise LoadFailed(
            f"{what} sets minimum_slot_utilization, and sequences have no slots here; remove it."
        )
    if batching.oldest.max_candidate_sequences < 0:
        raise LoadFailed(
            f"{what} sets max_candidate_sequences to {batching.oldest.max_candidate_sequences}; write a "
            "positive number, or nothing."
        )


def _state(
    state: ModelSequenceBatching.State,
    batch_axes: int,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    folder: Path,
    what: str,
) -> StateSpec:
    datatype, shape = datatype_of_type(state.data_type), (FREE,) * batch_axes + tuple(state.dims)
    for kind, name, specs in (
        ("input", state.input_name, inputs),
        ("output", state.output_name, outputs),
    ):
        spec = specs.get(name)
        if spec is None:
            raise LoadFailed(
                f"{what} keeps state in the {kind} {name!r}, which the model does not have; correct it."
            )
        if spec.datatype != datatype or not _may_be(spec.shape, shape):
            raise LoadFailed(
                f"{what} keeps state in the {kind} {name!r} as {datatype} of {list(shape)}, and the "
                f"model has {spec.datatype} of {list(spec.shape)}; correct it."
            )
    if state.use_growable_memory:
        raise LoadFailed(f"{what} asks for growable memory for {state.input_name!r}, which is for GPUs.")
    return StateSpec(state.input_name, state.output_name, _initial(state, datatype, batch_axes, folder, what))


def _may_be(theirs: tuple[int, ...], mine: tuple[int, ...]) -> bool:
    return len(theirs) == len(mine) and all(
        FREE in (a, b) or a == b for a, b in zip(theirs, mine, strict=True)
    )


def _initial(
    state: ModelSequenceBatching.State, datatype: str, batch_axes: int, folder: Path, what: str
) -> Array:
    """Return what a new sequence starts with; zeros, with a length of 1 for a free one, if nothing is said.

    Triton leaves the contents open then; that a request may see another's memory is nothing to imitate.
    """
    named = f"{what}, for the state {state.input_name!r},"
    batch = (1,) * batch_axes
    if len(state.initial_state) > 1:
        raise LoadFailed(f"{named} lists {len(state.initial_state)} initial states; list one, or none.")
    if not state.initial_state:
        return zeros(datatype, batch + tuple(1 if length == FREE else length for length in state.dims))
    given = state.initial_state[0]
    shape = tuple(given.dims)
    if given.data_type != state.data_type or any(length < 1 for length in shape):
        raise LoadFailed(f"{named} starts with another data_type or a free length; write what the state has.")
    if not _may_be(tuple(state.dims), shape):
        raise LoadFailed(
            f"{named} starts with {list(shape)}, which is not of {list(state.dims)}; correct it."
        )
    source = given.WhichOneof("state_data")
    if source is None:
        raise LoadFailed(f"{named} does not say what it starts with; write zero_data or data_file.")
    if source == "zero_data":
        return zeros(datatype, batch + shape)
    array = read_tensor_file(folder, given.data_file, datatype, shape, named)
    return array.reshape(batch + shape)
