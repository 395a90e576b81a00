"""The response cache as a whole: what it holds, and what it let go."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flyweight.server.caching import CacheStatistics


class CacheMetrics(Collector):
    """Collects the cache's metrics; its hits and misses are told by variant, with the requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._statistics: Callable[[], CacheStatistics] | None = None
        registry.register(self)

    def show(self, statistics: Callable[[], CacheStatistics]) -> None:
        """Tell of this cache from now on."""
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Read the counts of this moment."""
        held, entries, evictions = families = _families()
        if self._statistics is not None:
            now = self._statistics()
            held.add_metric(["held"], now.held_bytes)
            held.add_metric(["limit"], now.limit_bytes)
            entries.add_metric([], now.entries)
            evictions.add_metric([], now.evictions)
        yield from families


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
    return (
        GaugeMetricFamily(
            "flyweight_response_cache_bytes",
            "Memory of the response cache (held: now, limit: at most, 0 for off): is it full?",
            labels=("kind",),
        ),
        GaugeMetricFamily(
            "flyweight_response_cache_entries", "Answers that the response cache holds: how many are there?"
        ),
        CounterMetricFamily(
            "flyweight_response_cache_evictions",
            "Answers that made room for others: is the response cache too small?",
        ),
    )
