"""What config.pbtxt says of queues, batches and instances, checked as Triton checks it. Pure.

Source: model_config.proto of triton-inference-server/common (ModelDynamicBatching, ModelQueuePolicy,
ModelInstanceGroup) and Triton's user guide, "Batchers" and "Instance Groups".
"""

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from flyweight.protos.inference.model_config_pb2 import (
    ModelConfig,
    ModelDynamicBatching,
    ModelInstanceGroup,
    ModelQueuePolicy,
)
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.serving import Merging, QueuePolicy, ServingPolicy, TimeoutAction
from flyweight.server.runtime.signature import Signature

_MICROSECONDS: Final = 1e-6

# Each level is a queue; nobody tells a hundred priorities apart, and a number sent by mistake would make one.
_MOST_PRIORITY_LEVELS: Final = 100


def serving_of(config: ModelConfig | None, signature: Signature) -> ServingPolicy:
    """Return how requests to a variant are queued and run.

    Args:
        config: what the repository says, before it was completed; None when it says nothing.
        signature: what requests are checked against.

    Raises:
        LoadFailed: the configuration contradicts itself, or asks for instances that are not served.
    """
    given = config if config is not None else ModelConfig()
    what = f"The config.pbtxt of {given.name}" if given.name else "The config.pbtxt"
    rows = signature.max_batch_rows
    instances = _instances(given.instance_group, what)
    if given.HasField("sequence_batching"):
        return _of_sequences(given, rows, instances, what)
    if not given.HasField("dynamic_batching"):
        return ServingPolicy(merging=_merging(given, rows), max_rows=rows, instances=instances)
    return _of_batches(given.dynamic_batching, rows, instances, what)


def _merging(config: ModelConfig, rows: int) -> Merging:
    """Return whether requests are merged where nobody asks for dynamic batching.

    Triton completes a configuration that does not list both inputs and outputs, and then batches dynamically;
    one that lists them is taken at its word, and requests run one by one.
    """
    is_written_out = bool(config.input) and bool(config.output)
    return Merging.NEVER if rows == 0 or is_written_out else Merging.MEASURED


def _of_batches(batching: ModelDynamicBatching, rows: int, instances: int, what: str) -> ServingPolicy:
    _check_preferred(batching.preferred_batch_size, rows, what)
    _check_levels(batching, what)
    _check_ordering(batching, what)
    # A policy that is written is followed to the letter, and Triton's letter is that a request's own timeout
    # does not count unless it is allowed; where none is written, what callers ask for counts.
    default = (
        _queue_of(batching.default_queue_policy)
        if batching.HasField("default_queue_policy")
        else QueuePolicy()
    )
    queues = {level: _queue_of(policy) for level, policy in batching.priority_queue_policy.items()}
    return ServingPolicy(
        merging=Merging.ASKED if rows else Merging.NEVER,
        max_rows=rows,
        preferred_rows=tuple(sorted(set(batching.preferred_batch_size))),
        max_delay_seconds=batching.max_queue_delay_microseconds * _MICROSECONDS,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority=batching.default_priority_level if batching.priority_levels else 0,
        queue=default,
        queues=MappingProxyType(dict(sorted(queues.items()))),
        instances=instances,
    )


def _of_sequences(config: ModelConfig, rows: int, instances: int, what: str) -> ServingPolicy:
    """Return the policy of a model with state: rows of different sequences share runs, as in Triton."""
    batching = config.sequence_batching
    preferred: tuple[int, ...] = ()
    delay, ordering = batching.direct.max_queue_delay_microseconds, False
    if batching.HasField("oldest"):
        _check_preferred(batching.oldest.preferred_batch_size, rows, what)
        preferred = tuple(sorted(set(batching.oldest.preferred_batch_size)))
        delay = batching.oldest.max_queue_delay_microseconds
        ordering = batching.oldest.preserve_ordering
    return ServingPolicy(
        merging=Merging.ASKED if rows > 1 else Merging.NEVER,
        max_rows=rows,
        preferred_rows=preferred,
        max_delay_seconds=delay * _MICROSECONDS,
        preserve_ordering=ordering,
        instances=instances,
    )


def _check_preferred(sizes: Iterable[int], rows: int, what: str) -> None:
    for size in sizes:
        if size <= 0:
            raise LoadFailed(f"{what} prefers batches of {size} rows; name positive numbers only.")
        if size > rows:
            raise LoadFailed(
                f"{what} prefers batches of {size} rows where max_batch_size is {rows}; raise the one or "
                "lower the other."
            )


def _check_levels(batching: ModelDynamicBatching, what: str) -> None:
    levels = batching.priority_levels
    if levels > _MOST_PRIORITY_LEVELS:
        raise LoadFailed(
            f"{what} has {levels} priority_levels; at most {_MOST_PRIORITY_LEVELS} are told apart."
        )
    if levels and not 1 <= batching.default_priority_level <= levels:
        raise LoadFailed(
            f"{what} sets default_priority_level to {batching.default_priority_level}; with {levels} "
            f"priority_levels it must be from 1 to {levels}."
        )
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            raise LoadFailed(
                f"{what} has a priority_queue_policy for level {level}, and there are {levels} "
                "priority_levels; correct one of them."
            )


def _check_ordering(batching: ModelDynamicBatching, what: str) -> None:
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        raise LoadFailed(
            f"{what} asks for preserve_ordering and for {batching.priority_levels} priority_levels, which "
            "contradict each other; choose one."
        )
    for policy in (batching.default_queue_policy, *batching.priority_queue_policy.values()):
        if policy.default_timeout_microseconds and policy.timeout_action == ModelQueuePolicy.DELAY:
            raise LoadFailed(
                f"{what} asks for preserve_ordering and for the timeout_action DELAY, which contradict each "
                "other; choose one."
            )


def _queue_of(policy: ModelQueuePolicy) -> QueuePolicy:
    is_delaying = policy.timeout_action == ModelQueuePolicy.DELAY
    timeout = policy.default_timeout_microseconds
    return QueuePolicy(
        action=TimeoutAction.DELAY if is_delaying else TimeoutAction.REJECT,
        default_timeout_seconds=timeout * _MICROSECONDS if timeout else None,
        allow_timeout_override=policy.allow_timeout_override,
        max_waiting=policy.max_queue_size,
    )


def _instances(groups: Iterable[ModelInstanceGroup], what: str) -> int:
    """Return how many runs go on at once: the sum over the groups, 0 if one leaves it to the server."""
    counts: list[int] = []
    for group in groups:
        name = f"the instance_group {group.name!r}" if group.name else "an instance_group"
        kind = ModelInstanceGroup.Kind.Name(group.kind)
        if group.kind not in {ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_AUTO}:
            raise LoadFailed(f"{what} has {name} of {kind}, and models run on CPUs here; write KIND_CPU.")
        for field, is_set in (
            ("gpus", bool(group.gpus)),
            ("secondary_devices", bool(group.secondary_devices)),
            ("profile", bool(group.profile)),
            ("passive", group.passive),
        ):
            if is_set:
                raise LoadFailed(f"{what} has {name} with {field}, which CPUs have no use for; remove it.")
        if group.count < 0:
            raise LoadFailed(f"{what} has {name} with a count of {group.count}; write 1 or more.")
        counts.append(group.count)
    return sum(counts) if all(counts) else 0
