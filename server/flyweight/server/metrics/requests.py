"""Requests by model, variant and role: how many, how they ended, where their time went, how they shared runs.

Kept as plain numbers under one lock, and made into metrics when somebody asks: a request adds to seven
series, and in Prometheus's client library each takes one to three locks, which many threads contend for.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from flyweight.server.errors import Code
from flyweight.server.metrics.histogram import Histogram
from flyweight.server.metrics.request_families import STAGES, WHO, RequestFamilies
from flyweight.server.rpc.records import Answerer, Record, Rejection

__all__ = ["WHO", "RequestMetrics", "Totals"]

# From the smallest network's run (20 microseconds) to the longest wait anyone sets as a deadline, in steps of
# 2 to 2.5: a percentile read off them is then right to about a fifth.
_SECONDS_BUCKETS: Final = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3),
    *(1.0, 2.5, 5.0, 10.0),
)  # fmt: skip
# Powers of two, as batches are made.
_ROWS_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class _Tally:
    """What one answerer did."""

    __slots__ = ("cache", "cached_rows", "rows", "run_requests", "run_rows", "run_seconds", "stages")

    def __init__(self) -> None:
        self.rows = Histogram(_ROWS_BUCKETS)
        self.stages = tuple(Histogram(_SECONDS_BUCKETS) for _ in STAGES)
        self.run_rows = Histogram(_ROWS_BUCKETS)
        self.run_requests = Histogram(_ROWS_BUCKETS)
        self.run_seconds = Histogram(_SECONDS_BUCKETS)
        # Misses, hits.
        self.cache = [0, 0]
        self.cached_rows = 0

    def add(self, record: Record) -> None:
        self.rows.add(record.rows)
        # Histogram.add five times without its call, which was half of what a request costs here.
        bucket, bounds = bisect_left, _SECONDS_BUCKETS
        decode, queue, run, encode, total = self.stages
        seconds = record.decode_seconds
        decode.counts[bucket(bounds, seconds)] += 1
        decode.sum += seconds
        seconds = record.queue_seconds
        queue.counts[bucket(bounds, seconds)] += 1
        queue.sum += seconds
        seconds = record.run_seconds
        run.counts[bucket(bounds, seconds)] += 1
        run.sum += seconds
        seconds = record.encode_seconds
        encode.counts[bucket(bounds, seconds)] += 1
        encode.sum += seconds
        seconds = record.total_seconds
        total.counts[bucket(bounds, seconds)] += 1
        total.sum += seconds
        if record.cache_hit is not None:
            self.cache[record.cache_hit] += 1
            if record.cache_hit:
                self.cached_rows += record.rows

    def add_run(self, record: Record) -> None:
        self.run_rows.add(record.batch_rows)
        self.run_requests.add(record.batch_requests)
        self.run_seconds.add(record.run_seconds)


@dataclass(slots=True)
class Totals:
    """Everything of one variant since it was first asked, whatever its role; times in seconds by stage.

    `rows` are those that were run for requests that succeeded: what the cache had is not among them.
    """

    success: int = 0
    failures: Counter[Code] = field(default_factory=Counter[Code])
    rows: int = 0
    runs: int = 0
    seconds: Counter[str] = field(default_factory=Counter[str])
    cache_hits: int = 0
    cache_misses: int = 0


class RequestMetrics(Collector):
    """A Recorder, and the collector of what it recorded. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._failed: Counter[tuple[Answerer, Code]] = Counter()
        self._tallies: dict[Answerer, _Tally] = {}
        self._in_flight: dict[Answerer, int] = {}
        self._rejected: Counter[tuple[str, Rejection]] = Counter()
        registry.register(self)

    def begin(self, answerer: Answerer) -> None:
        """Count a request that starts to use a variant."""
        with self._lock:
            self._in_flight[answerer] = self._in_flight.get(answerer, 0) + 1

    def end(self, answerer: Answerer) -> None:
        """Count down when it is done with it."""
        with self._lock:
            self._in_flight[answerer] -= 1

    def record(self, record: Record) -> None:
        """Count a request, with its times when it succeeded, and the run that it leads."""
        answerer = record.answerer
        with self._lock:
            if record.code is Code.OK or record.leads_run:
                tally = self._tallies.get(answerer)
                if tally is None:
                    tally = self._tallies[answerer] = _Tally()
                if record.leads_run:
                    tally.add_run(record)
                if record.code is Code.OK:
                    tally.add(record)
                    return
            self._failed[answerer, record.code] += 1
            if record.rejection is not None:
                self._rejected[answerer.model, record.rejection] += 1

    def expect(self, model: str) -> None:
        """Show a model's rejections before there are any: a series that is there shows its first increase."""
        with self._lock:
            for reason in Rejection:
                self._rejected[model, reason] += 0

    def forget(self, model: str, variant: str) -> None:
        """Drop the gauges of a variant that nobody holds; counters stay, for rates need their past.

        What is held still belongs to an earlier variant of the same name, which is forgotten in its turn.
        """
        with self._lock:
            for answerer, count in list(self._in_flight.items()):
                if not count and (answerer.model, answerer.variant) == (model, variant):
                    del self._in_flight[answerer]

    def drop(self, model: str, variant: str) -> None:
        """Drop the counters of a variant that has been gone for long; "" is for those of the model itself."""
        with self._lock:
            for answerer in [each for each in self._tallies if each[:2] == (model, variant)]:
                del self._tallies[answerer]
            for key in [each for each in self._failed if each[0][:2] == (model, variant)]:
                del self._failed[key]
            if not variant:
                for reason in Rejection:
                    self._rejected.pop((model, reason), None)

    def totals(self) -> dict[tuple[str, str], Totals]:
        """Return what was recorded up to now by model and variant."""
        found: dict[tuple[str, str], Totals] = {}
        with self._lock:
            for (answerer, code), count in self._failed.items():
                found.setdefault(answerer[:2], Totals()).failures[code] += count
            for answerer, tally in self._tallies.items():
                _add_up(found.setdefault(answerer[:2], Totals()), tally)
        return found

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return RequestFamilies().all()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of what was recorded up to now."""
        families = RequestFamilies()
        with self._lock:
            for (answerer, code), count in self._failed.items():
                families.requests.add_metric([*answerer, code.name], count)
            for answerer, tally in self._tallies.items():
                _show(families, answerer, tally)
            for answerer, count in self._in_flight.items():
                families.in_flight.add_metric(list(answerer), count)
            for (model, reason), count in self._rejected.items():
                families.rejected.add_metric([model, reason.value], count)
        yield from families.all()


def _show(families: RequestFamilies, answerer: Answerer, tally: _Tally) -> None:
    """Add the series of one answerer; those of requests only once there was one that succeeded."""
    if succeeded := tally.rows.count:
        families.requests.add_metric([*answerer, Code.OK.name], succeeded)
        tally.rows.show(families.rows, answerer)
        for stage, histogram in zip(STAGES, tally.stages, strict=True):
            histogram.show(families.stages, [*answerer, stage])
    if tally.run_rows.count:
        tally.run_rows.show(families.run_rows, answerer)
        tally.run_requests.show(families.run_requests, answerer)
        tally.run_seconds.show(families.run_seconds, answerer)
    if any(tally.cache):
        for outcome, count in zip(("miss", "hit"), tally.cache, strict=True):
            families.cache.add_metric([*answerer, outcome], count)


def _add_up(totals: Totals, tally: _Tally) -> None:
    totals.success += tally.rows.count
    totals.rows += round(tally.rows.sum) - tally.cached_rows
    totals.runs += tally.run_rows.count
    for stage, histogram in zip(STAGES, tally.stages, strict=True):
        totals.seconds[stage] += histogram.sum  # type: ignore[assignment]
    totals.cache_misses += tally.cache[0]
    totals.cache_hits += tally.cache[1]
