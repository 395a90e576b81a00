from collections.abc import Callable

import pytest

from flyweight.server.batching.job import Job
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics import Metrics
from flyweight.server.runtime.usage import Usage

LABELS = {"model": "tiny", "variant": "int8"}
EVERYTHING = Usage(
    file_bytes=1,
    pss_bytes=2,
    uss_bytes=3,
    peak_rss_bytes=4,
    cpu_seconds=5.5,
    load_peak_bytes=6,
    arena_bytes=7,
    base_pss_bytes=8,
    own_pss_bytes=9,
    own_uss_bytes=10,
    restarts=11,
)

MakeTable = Callable[..., RoutingTable]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"flyweight_{name}", LABELS | labels)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("own_pss", 9),
        ("own_uss", 10),
        ("load_peak", 6),
        ("arena", 7),
        ("process_pss", 2),
        ("process_uss", 3),
        ("process_peak_rss", 4),
        ("load_pss", 1000),
    ],
)
def test_memory_is_shown_by_kind(metrics: Metrics, table_of: MakeTable, kind: str, expected: int) -> None:
    metrics.on_table(table_of(int8=EVERYTHING))
    assert value(metrics, "variant_memory_bytes", kind=kind) == expected


def test_what_a_process_of_its_own_tells_is_shown(metrics: Metrics, table_of: MakeTable) -> None:
    metrics.on_table(table_of(int8=EVERYTHING))
    assert value(metrics, "variant_cpu_seconds_total") == 5.5
    assert value(metrics, "worker_restarts_total") == 11
    assert value(metrics, "variant_file_bytes") == 1


def test_what_nobody_can_tell_is_left_out(metrics: Metrics, table_of: MakeTable) -> None:
    metrics.on_table(table_of(int8=Usage(file_bytes=1)))
    assert value(metrics, "variant_memory_bytes", kind="own_pss") is None
    assert value(metrics, "variant_cpu_seconds_total") is None
    assert value(metrics, "worker_restarts_total") is None


def test_every_scrape_reads_anew(metrics: Metrics, table_of: MakeTable) -> None:
    table = table_of(int8=Usage(file_bytes=1, pss_bytes=1))
    metrics.on_table(table)
    runtime = table.models["tiny"].variants["int8"].runtime
    runtime.taken = Usage(file_bytes=1, pss_bytes=2)  # type: ignore[attr-defined]
    assert value(metrics, "variant_memory_bytes", kind="process_pss") == 2


def test_a_queue_is_as_long_as_it_is_at_the_scrape(metrics: Metrics, table_of: MakeTable) -> None:
    table = table_of(baseline=Usage(1), int8=Usage(1))
    metrics.on_table(table)
    for _ in range(3):
        table.models["tiny"].variants["int8"].lane.queue.add(Job({}, 1, ("y",), 0.0, lambda _: None))
    assert value(metrics, "queue_requests", role="candidate") == 3
    assert value(metrics, "queue_requests", variant="baseline", role="baseline") == 0


def test_nothing_is_told_of_a_variant_that_is_gone(metrics: Metrics, table_of: MakeTable) -> None:
    metrics.on_table(table_of(int8=EVERYTHING))
    metrics.on_table(table_of(baseline=EVERYTHING))
    assert value(metrics, "variant_ready") is None
    assert value(metrics, "variant_memory_bytes", kind="own_pss") is None
