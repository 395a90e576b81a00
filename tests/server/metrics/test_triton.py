from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flyweight.server.batching.job import Job
from flyweight.server.errors import Code
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics import Metrics
from flyweight.server.metrics.triton import TritonMetrics
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.runtime.usage import Usage

INT8 = Answerer("tiny", "int8", "candidate")
LABELS = {"model": "tiny", "version": "int8"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"nv_{name}", LABELS | labels)


def test_successes_rows_and_runs_have_tritons_names(metrics: Metrics) -> None:
    for leads in (True, False):
        metrics.requests.record(Record(answerer=INT8, rows=3, batch_rows=6, leads_run=leads))
    assert value(metrics, "inference_request_success") == 2
    assert value(metrics, "inference_count") == 6
    assert value(metrics, "inference_exec_count") == 1


@pytest.mark.parametrize(
    ("name", "microseconds"),
    [
        ("request", 15),
        ("queue", 2),
        ("compute_input", 1),
        ("compute_infer", 4),
        ("compute_output", 8),
    ],
)
def test_durations_are_in_microseconds(metrics: Metrics, name: str, microseconds: int) -> None:
    record = Record(answerer=INT8, decode_seconds=1e-6, queue_seconds=2e-6, run_seconds=4e-6)
    record.encode_seconds, record.total_seconds = 8e-6, 15e-6
    metrics.requests.record(record)
    assert value(metrics, f"inference_{name}_duration_us") == microseconds


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.RESOURCE_EXHAUSTED, "REJECTED"),
        (Code.DEADLINE_EXCEEDED, "REJECTED"),
        (Code.CANCELLED, "CANCELED"),
        (Code.INTERNAL, "BACKEND"),
        (Code.INVALID_ARGUMENT, "OTHER"),
    ],
)
def test_failures_have_tritons_reasons(metrics: Metrics, code: Code, reason: str) -> None:
    metrics.requests.record(Record(answerer=INT8, code=code))
    assert value(metrics, "inference_request_failure", reason=reason) == 1


def test_failures_of_one_reason_are_added_up(metrics: Metrics) -> None:
    for code in (Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED):
        metrics.requests.record(Record(answerer=INT8, code=code))
    assert value(metrics, "inference_request_failure", reason="REJECTED") == 2


def test_lookups_of_the_cache_have_tritons_names(metrics: Metrics) -> None:
    for hit in (True, True, False):
        metrics.requests.record(Record(answerer=INT8, cache_hit=hit, rows=4))
    assert value(metrics, "cache_num_hits_per_model") == 2
    assert value(metrics, "cache_num_misses_per_model") == 1
    assert value(metrics, "inference_count") == 4, "what was not run does not count"


def test_requests_that_wait_are_pending(metrics: Metrics, table_of: Callable[..., RoutingTable]) -> None:
    table = table_of(int8=Usage(1))
    metrics.on_table(table)
    assert value(metrics, "inference_pending_request_count") == 0
    table.models["tiny"].variants["int8"].lane.queue.add(Job({}, 1, ("y",), 0.0, lambda _: None))
    assert value(metrics, "inference_pending_request_count") == 1


def test_the_machines_memory_is_told(metrics: Metrics, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:  30 kB\n")
    registry = CollectorRegistry()
    TritonMetrics(registry, metrics.requests, metrics.variants, tmp_path / "meminfo")
    assert registry.get_sample_value("nv_cpu_memory_total_bytes") == 100 * 1024
    assert registry.get_sample_value("nv_cpu_memory_used_bytes") == 70 * 1024


def test_tritons_names_can_be_left_out() -> None:
    shown = generate_latest(Metrics(triton_names=False).registry).decode()
    assert "nv_" not in shown
    assert "flyweight_requests" in shown
