"""Requests by model, variant and role: how many, how they ended, where their time went, who shared runs."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from flyweight.server.errors import Code
from flyweight.server.metrics.histogram import show_buckets
from flyweight.server.metrics.request_families import STAGES, RequestFamilies
from flyweight.server.rpc.records import Answerer
from flyweight.server.rpc.tallies import ROWS_BUCKETS, SECONDS_BUCKETS, Tallies, Tally


class RequestMetrics(Tallies, Collector):
    """The tallies of one server, and the collector that makes them into metrics when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return RequestFamilies().all()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of what was recorded up to now."""
        families = RequestFamilies()
        with self._lock:
            for answerer, tally in self._tallies.items():
                for code, count in tally.failures.items():
                    families.requests.add_metric([*answerer, code.name], count)
                _show_requests(families, answerer, tally)
                _show_runs(families, answerer, tally)
                if tally.is_in_use:
                    families.in_flight.add_metric(list(answerer), tally.in_flight)
            for (model, reason), count in self._rejected.items():
                families.rejected.add_metric([model, reason.value], count)
        yield from families.all()


def _show_requests(families: RequestFamilies, answerer: Answerer, tally: Tally) -> None:
    """Add the series of requests that succeeded, once there was one."""
    successes = tally.successes
    if successes:
        families.requests.add_metric([*answerer, Code.OK.name], successes)
        show_buckets(families.rows, answerer, ROWS_BUCKETS, tally.rows_counts, tally.rows)
        for stage, counts, seconds in zip(STAGES, tally.seconds_counts, tally.seconds, strict=True):
            show_buckets(families.stages, [*answerer, stage], SECONDS_BUCKETS, counts, seconds)
    if any(tally.cache):
        for outcome, count in zip(("miss", "hit"), tally.cache, strict=True):
            families.cache.add_metric([*answerer, outcome], count)


def _show_runs(families: RequestFamilies, answerer: Answerer, tally: Tally) -> None:
    if not tally.runs:
        return
    show_buckets(families.run_rows, answerer, ROWS_BUCKETS, tally.run_rows_counts, tally.run_rows)
    counts = tally.run_requests_counts
    show_buckets(families.run_requests, answerer, ROWS_BUCKETS, counts, tally.run_requests)
    counts = tally.run_seconds_counts
    show_buckets(families.run_seconds, answerer, SECONDS_BUCKETS, counts, tally.run_seconds)
