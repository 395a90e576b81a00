"""Requests by model, variant and role: how many, how they ended, where their time went.

Kept as plain numbers under one lock, and made into metrics when somebody asks: a request adds to seven
series, and in Prometheus's client library each takes one to three locks, which many threads contend for.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from flyweight.server.errors import Code
from flyweight.server.rpc.records import Answerer, Record, Rejection

WHO: Final = ("model", "variant", "role")

# From the smallest network's run (20 microseconds) to the longest wait anyone sets as a deadline, in steps of
# 2 to 2.5: a percentile read off them is then right to about a fifth.
_SECONDS_BUCKETS: Final = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3),
    *(1.0, 2.5, 5.0, 10.0),
)  # fmt: skip
# Powers of two, as batches are made.
_ROWS_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

_STAGES: Final = ("decode", "queue", "run", "encode", "total")


class _Histogram:
    """How many values fell into each bucket, the last being for all that are larger, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        # A bucket holds what is at most its bound.
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def show(self, family: HistogramMetricFamily, labels: Iterable[str]) -> None:
        total, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            label = floatToGoString(bound)  # type: ignore[no-untyped-call]  # annotated in part
            buckets.append((label, total))
        family.add_metric(list(labels), buckets, self._sum)


class _Tally:
    """The successful requests of one answerer."""

    __slots__ = ("rows", "stages")

    def __init__(self) -> None:
        self.rows = _Histogram(_ROWS_BUCKETS)
        self.stages = tuple(_Histogram(_SECONDS_BUCKETS) for _ in _STAGES)

    def add(self, record: Record) -> None:
        decode, queue, run, encode, total = self.stages
        self.rows.add(record.rows)
        decode.add(record.decode_seconds)
        queue.add(record.queue_seconds)
        run.add(record.run_seconds)
        encode.add(record.encode_seconds)
        total.add(record.total_seconds)


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
        """Count a request, with its times when it succeeded."""
        answerer = record.answerer
        with self._lock:
            if record.code is Code.OK:
                tally = self._tallies.get(answerer)
                if tally is None:
                    tally = self._tallies[answerer] = _Tally()
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

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of what was recorded up to now."""
        requests, stages, rows, in_flight, rejected = families = _families()
        with self._lock:
            for (answerer, code), count in self._failed.items():
                requests.add_metric([*answerer, code.name], count)
            for answerer, tally in self._tallies.items():
                requests.add_metric([*answerer, Code.OK.name], tally.rows.count)
                tally.rows.show(rows, answerer)
                for stage, histogram in zip(_STAGES, tally.stages, strict=True):
                    histogram.show(stages, [*answerer, stage])
            for answerer, count in self._in_flight.items():
                in_flight.add_metric(list(answerer), count)
            for (model, reason), count in self._rejected.items():
                rejected.add_metric([model, reason.value], count)
        yield from families


def _families() -> tuple[
    CounterMetricFamily,
    HistogramMetricFamily,
    HistogramMetricFamily,
    GaugeMetricFamily,
    CounterMetricFamily,
]:
    return (
        CounterMetricFamily(
            "flyweight_requests",
            "Inference requests by the gRPC status they ended with: how much traffic, how many errors?",
            labels=(*WHO, "code"),
        ),
        HistogramMetricFamily(
            "flyweight_request_stage_seconds",
            "Time of successful requests by stage (decode, queue, run, encode, total): where does it go?",
            labels=(*WHO, "stage"),
        ),
        HistogramMetricFamily(
            "flyweight_request_rows",
            "Rows in successful requests, as their callers batched them: how large are requests?",
            labels=WHO,
        ),
        GaugeMetricFamily(
            "flyweight_requests_in_flight",
            "Requests that hold a variant now: is it in use, is it drained?",
            labels=WHO,
        ),
        CounterMetricFamily(
            "flyweight_requests_rejected",
            "Requests turned away before they ran (queue_full, deadline, draining): is there overload?",
            labels=("model", "reason"),
        ),
    )
