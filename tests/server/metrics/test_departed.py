from collections.abc import Callable

import pytest
from prometheus_client import generate_latest

from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics import Metrics
from flyweight.server.metrics.departed import Departed
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.runtime.usage import Usage

MINUTE = 60.0
A, B = ("tiny", "a"), ("tiny", "b")


class Remembering:
    """Takes what is dropped."""

    def __init__(self) -> None:
        self.dropped: list[tuple[str, str]] = []

    def __call__(self, model: str, variant: str) -> None:
        self.dropped.append((model, variant))


@pytest.fixture
def drop() -> Remembering:
    return Remembering()


@pytest.fixture
def departed(drop: Remembering, clock: Callable[[], float]) -> Departed:
    return Departed(drop, clock)


def test_who_is_gone_is_kept_for_ten_minutes(departed: Departed, drop: Remembering, clock) -> None:
    departed.show([A, B])
    departed.show([B])
    clock.now += 9 * MINUTE
    departed.sweep()
    assert drop.dropped == []
    clock.now += 2 * MINUTE
    departed.sweep()
    assert drop.dropped == [A]


def test_who_comes_back_in_time_is_not_dropped(departed: Departed, drop: Remembering, clock) -> None:
    departed.show([A])
    departed.show([])
    clock.now += 9 * MINUTE
    departed.show([A])
    clock.now += 9 * MINUTE
    departed.sweep()
    assert drop.dropped == []


def test_who_was_never_there_and_is_told_of_counts_as_gone(departed: Departed, drop: Remembering, clock):
    departed.mention(A)
    clock.now += 11 * MINUTE
    departed.sweep()
    assert drop.dropped == [A]


def test_what_is_told_of_the_gone_keeps_them(departed: Departed, drop: Remembering, clock) -> None:
    departed.mention(A)
    clock.now += 9 * MINUTE
    departed.mention(A)
    clock.now += 9 * MINUTE
    departed.sweep()
    assert drop.dropped == []


def test_of_too_many_the_longest_gone_are_dropped_at_once(departed: Departed, drop: Remembering, clock):
    for number in range(300):
        clock.now += 0.1
        departed.mention(("tiny", str(number)))
    assert drop.dropped == [("tiny", str(number)) for number in range(300 - 256)]


def test_the_series_of_a_thousand_variants_that_came_and_went_are_bounded(
    table_of: Callable[..., RoutingTable], clock
) -> None:
    metrics = Metrics(monotonic=clock)
    for number in range(1000):
        name = f"v{number}"
        table = table_of(**{name: Usage(1)})
        metrics.on_load(table.models["tiny"].variants[name], 0.1)
        metrics.on_table(table)
        metrics.requests.record(Record(answerer=Answerer("tiny", name, "baseline")))
        metrics.on_table(RoutingTable())
        metrics.on_unload("tiny", name)
    assert generate_latest(metrics.registry).decode().count("flyweight_loads_total{") <= 256
    clock.now += 11 * MINUTE
    metrics.on_scan(ok=True)
    assert 'model="tiny"' not in generate_latest(metrics.registry).decode()
