"""Queues, batches and instances, as config.pbtxt writes them."""

from pathlib import Path

import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.repository.scheduling import serving_of
from flyweight.server.repository.serving import Merging, QueuePolicy, ServingPolicy, TimeoutAction
from flyweight.server.runtime.signature import Signature, TensorSpec

TENSORS = 'input [{name: "x"}] output [{name: "y"}] '


def signature(rows: int) -> Signature:
    return Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),), rows)


def config(text: str) -> ModelConfig:
    return parse_model_config(text, Path("config.pbtxt"))


def serving(text: str, rows: int = 8) -> ServingPolicy:
    return serving_of(config(f'name: "m" {text}'), signature(rows))


@pytest.mark.parametrize(
    ("text", "rows", "merging"),
    [
        ("max_batch_size: 8 dynamic_batching {}", 8, Merging.ASKED),
        (f"{TENSORS} max_batch_size: 8 dynamic_batching {{}}", 8, Merging.ASKED),
        ("dynamic_batching {}", 0, Merging.NEVER),
        (f"{TENSORS} max_batch_size: 8", 8, Merging.NEVER),
        ("max_batch_size: 8", 8, Merging.MEASURED),
        ("", 1024, Merging.MEASURED),
        ("", 0, Merging.NEVER),
        ("max_batch_size: 8 sequence_batching {}", 8, Merging.ASKED),
        ("max_batch_size: 1 sequence_batching {}", 1, Merging.NEVER),
    ],
)
def test_requests_are_merged_where_triton_would(text: str, rows: int, merging: Merging) -> None:
    policy = serving(text, rows)
    assert policy.merging is merging
    assert policy.max_rows == rows


def test_a_model_without_a_configuration_is_measured() -> None:
    assert serving_of(None, signature(1024)) == ServingPolicy(Merging.MEASURED, 1024)


def test_everything_of_dynamic_batching_is_read() -> None:
    policy = serving(
        """
        dynamic_batching {
          preferred_batch_size: [8, 4, 4]
          max_queue_delay_microseconds: 1500
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy {max_queue_size: 5 allow_timeout_override: true}
          priority_queue_policy {
            key: 1
            value {timeout_action: DELAY default_timeout_microseconds: 250000 max_queue_size: 7}
          }
        }
        instance_group [{count: 2 kind: KIND_CPU}, {count: 1}]
        """
    )
    assert policy.preferred_rows == (4, 8)
    assert policy.max_delay_seconds == pytest.approx(0.0015)
    assert (policy.priority_levels, policy.default_priority) == (3, 2)
    assert policy.instances == 3
    assert policy.queue_of(2) == QueuePolicy(max_waiting=5)
    assert policy.queue_of(1) == QueuePolicy(
        TimeoutAction.DELAY, default_timeout_seconds=0.25, allow_timeout_override=False, max_waiting=7
    )


def test_a_written_queue_policy_is_followed_to_the_letter_and_none_lets_callers_ask() -> None:
    assert serving("dynamic_batching {}").queue.allow_timeout_override
    assert not serving("dynamic_batching {default_queue_policy {}}").queue.allow_timeout_override


def test_the_oldest_strategy_has_its_own_delay_and_sizes() -> None:
    policy = serving(
        "sequence_batching {oldest {preferred_batch_size: [2] max_queue_delay_microseconds: 100 "
        "preserve_ordering: true}}"
    )
    assert policy.preferred_rows == (2,)
    assert policy.max_delay_seconds == pytest.approx(1e-4)
    assert policy.preserve_ordering
    direct = serving("sequence_batching {direct {max_queue_delay_microseconds: 200}}")
    assert direct.max_delay_seconds == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("text", "instances"),
    [
        ("", 0),
        ("instance_group [{}]", 0),
        ("instance_group [{count: 2}, {kind: KIND_CPU}]", 0),
        ("instance_group [{count: 2}]", 2),
        ('instance_group [{count: 1 host_policy: "p" rate_limiter {priority: 2}}]', 1),
    ],
)
def test_a_group_without_a_count_leaves_it_to_the_server(text: str, instances: int) -> None:
    assert serving(text).instances == instances


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dynamic_batching {preferred_batch_size: [9]}", "batches of 9 rows where max_batch_size is 8"),
        ("dynamic_batching {preferred_batch_size: [0]}", "batches of 0 rows"),
        ("dynamic_batching {priority_levels: 2}", "default_priority_level to 0; with 2"),
        ("dynamic_batching {priority_levels: 2 default_priority_level: 3}", "default_priority_level to 3"),
        ("dynamic_batching {priority_levels: 101 default_priority_level: 1}", "101 priority_levels"),
        ("dynamic_batching {priority_queue_policy {key: 1 value {}}}", "level 1, and there are 0"),
        (
            (
                "dynamic_batching {priority_levels: 1 default_priority_level: 1 "
                "priority_queue_policy {key: 2 value {}}}"
            ),
            "level 2, and there are 1",
        ),
        (
            "dynamic_batching {preserve_ordering: true priority_levels: 2 default_priority_level: 1}",
            "preserve_ordering and for 2 priority_levels",
        ),
        (
            (
                "dynamic_batching {preserve_ordering: true default_queue_policy "
                "{timeout_action: DELAY default_timeout_microseconds: 1}}"
            ),
            "timeout_action DELAY",
        ),
        ("sequence_batching {oldest {preferred_batch_size: [9]}}", "batches of 9 rows"),
        ("instance_group [{kind: KIND_GPU}]", "KIND_GPU"),
        ("instance_group [{kind: KIND_MODEL}]", "KIND_MODEL"),
        ('instance_group [{name: "g" gpus: [0]}]', "'g' with gpus"),
        ("instance_group [{secondary_devices: [{}]}]", "secondary_devices"),
        ('instance_group [{profile: ["0"]}]', "profile"),
        ("instance_group [{passive: true}]", "passive"),
        ("instance_group [{count: -1}]", "a count of -1"),
    ],
)
def test_what_contradicts_itself_or_is_not_served_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m ") as caught:
        serving(text)
    assert named in str(caught.value)
