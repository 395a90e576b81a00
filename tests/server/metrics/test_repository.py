from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics.repository import RepositoryMetrics
from flyweight.server.runtime.usage import Usage

INT8 = {"model": "tiny", "variant": "int8"}

MakeTable = Callable[..., RoutingTable]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def metrics(registry: CollectorRegistry, clock: Callable[[], float]) -> RepositoryMetrics:
    return RepositoryMetrics(registry, clock)


def load(metrics: RepositoryMetrics, table: RoutingTable) -> None:
    metrics.on_load(table.models["tiny"].variants["int8"], 0.2)
    metrics.on_table(table)


def test_a_newer_variant_of_the_same_name_is_a_swap(
    registry: CollectorRegistry, metrics: RepositoryMetrics, table_of: MakeTable
) -> None:
    load(metrics, table_of(int8=Usage(1)))
    assert registry.get_sample_value("flyweight_swaps_total", INT8) == 0
    load(metrics, table_of(int8=Usage(1)))
    assert registry.get_sample_value("flyweight_swaps_total", INT8) == 1


def test_a_variant_that_stays_is_no_swap(
    registry: CollectorRegistry, metrics: RepositoryMetrics, table_of: MakeTable
) -> None:
    table = table_of(int8=Usage(1))
    load(metrics, table)
    metrics.on_table(table)
    assert registry.get_sample_value("flyweight_swaps_total", INT8) == 0


def test_a_drain_lasts_from_the_table_to_the_close(
    registry: CollectorRegistry, metrics: RepositoryMetrics, table_of: MakeTable, clock
) -> None:
    load(metrics, table_of(int8=Usage(1)))
    metrics.on_table(RoutingTable())
    clock.now += 3
    metrics.on_unload("tiny", "int8")
    assert registry.get_sample_value("flyweight_drain_seconds_sum", INT8) == 3
    assert registry.get_sample_value("flyweight_unloads_total", INT8) == 1


def test_of_two_that_drain_the_first_to_go_is_the_first_to_end(
    registry: CollectorRegistry, metrics: RepositoryMetrics, table_of: MakeTable, clock
) -> None:
    load(metrics, table_of(int8=Usage(1)))
    for _ in range(2):
        clock.now += 10
        load(metrics, table_of(int8=Usage(1)))
    for _ in range(2):
        metrics.on_unload("tiny", "int8")
    assert registry.get_sample_value("flyweight_drain_seconds_sum", INT8) == 10 + 0
    assert registry.get_sample_value("flyweight_drain_seconds_count", INT8) == 2
