"""What config.pbtxt may ask for that has no meaning here and changes no answer: told, never ignored. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from google.protobuf.message import Message

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelSequenceBatching
from flyweight.server.repository.session_parameters import unread_parameters

_Control = ModelSequenceBatching.Control

_NO_DEVICE: Final = "batches are not copied to a device and back"
_NO_GRANTS: Final = "instances are granted nothing, as by default"

# Paths of fields. Of a field in a list, one element that sets it is enough.
NOTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "metric_tags": "metrics have the labels model, variant and role",
        "model_metrics": "histograms have the server's own buckets",
        "optimization.priority": "all models are of one importance",
        "optimization.input_pinned_memory": _NO_DEVICE,
        "optimization.output_pinned_memory": _NO_DEVICE,
        "optimization.gather_kernel_buffer_threshold": _NO_DEVICE,
        "optimization.eager_batching": _NO_DEVICE,
        "optimization.cuda.busy_wait_events": "models run on CPUs",
        "optimization.cuda.output_copy_stream": "models run on CPUs",
        "instance_group.rate_limiter": _NO_GRANTS,
        "instance_group.host_policy": _NO_GRANTS,
        "sequence_batching.state.use_same_buffer_for_input_output": "a run gives its states in new buffers",
        "ensemble_scheduling.max_inflight_requests": "each step has one answer to a request",
    }
)


def config_notes(config: ModelConfig, what: str) -> tuple[str, ...]:
    """Return a sentence for everything that is asked for without effect; `what` names the file in it."""
    notes = [
        f"{what} sets {path}, which has no meaning here: {reason}."
        for path, reason in NOTED.items()
        if _is_set(config, path.split("."))
    ]
    notes += [f"{what} sets {path}, which has no meaning {where}." for path, where in _misplaced(config)]
    notes += [
        f"{what} has the warm-up sample {sample.name or number!r} with a batch_size of 0: it is not run."
        for number, sample in enumerate(config.model_warmup)
        if not sample.batch_size
    ]
    notes += [
        f"{what} sets the parameter {name!r}: it is told by ModelConfig and has no effect."
        for name in unread_parameters(config)
    ]
    return tuple(notes)


def _misplaced(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield fields that mean something, but not where they stand, and where that is."""
    batching = config.dynamic_batching
    if batching.default_priority_level and not batching.priority_levels:
        yield "dynamic_batching.default_priority_level", "without priority_levels"
    if config.HasField("ensemble_scheduling") and config.default_model_filename:
        yield "default_model_filename", "for an ensemble"
    controls = [control for given in config.sequence_batching.control_input for control in given.control]
    if any(control.data_type and control.kind != _Control.CONTROL_SEQUENCE_CORRID for control in controls):
        yield "control_input.control.data_type", "but for CONTROL_SEQUENCE_CORRID"


def batching_notes(config: ModelConfig, max_batch_rows: int, what: str) -> tuple[str, ...]:
    """Return a sentence where requests that have no batch axis are to be joined along it."""
    if max_batch_rows or not config.HasField("dynamic_batching"):
        return ()
    sentence = f"{what} asks for dynamic_batching with a max_batch_size of 0: requests are run one by one."
    return (sentence,)


def _is_set(message: Message, path: Sequence[str]) -> bool:
    name, *rest = path
    value = next((value for field, value in message.ListFields() if field.name == name), None)
    if value is None or not rest:
        return value is not None
    return any(_is_set(part, rest) for part in ([value] if isinstance(value, Message) else value))
