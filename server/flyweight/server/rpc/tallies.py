"""What became of the inferences, added up as plain numbers: /metrics and ModelStatistics are two views of it.

A request adds to some twenty numbers under one lock; in Prometheus's client library each series would take
locks of its own, which many threads contend for.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flyweight.server.errors import Code
from flyweight.server.rpc.records import Answerer, Record, Rejection

# The parts of a request's time, in the order in which `Tally` has them.
STAGES: Final = ("decode", "queue", "run", "encode", "total")

# From the smallest network's run (20 microseconds) to the longest wait anyone sets as a deadline, in steps of
# 2 to 2.5: a percentile read off them is then right to about a fifth.
SECONDS_BUCKETS: Final = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3),
    *(1.0, 2.5, 5.0, 10.0),
)  # fmt: skip
# Powers of two, as batches are made.
ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Looking up is three times as quick as searching.
_LARGEST_ROWS: Final = ROWS_BUCKETS[-1]
_ROWS_BUCKET_OF: Final = tuple(bisect_left(ROWS_BUCKETS, rows) for rows in range(_LARGEST_ROWS + 1))

# How many sizes of runs are told apart for one variant: batches have a few; a caller may send any.
_MOST_SIZES: Final = 256

# Of an enumeration each look-up of a member takes as long as a bucket.
_OK: Final = Code.OK


@dataclass(slots=True)
class Batch:
    """The runs with one number of rows: how many, and the seconds of their stages."""

    runs: int = 0
    decode_seconds: float = 0.0
    run_seconds: float = 0.0
    encode_seconds: float = 0.0


class Tally:
    """What one answerer did. Its owner's lock guards it.

    `_counts` are numbers of values by bucket, the last being for all that are larger.
    """

    __slots__ = (
        "batches",
        "cache",
        "cached_rows",
        "cached_seconds",
        "failed_seconds",
        "failures",
        "good_runs",
        "in_flight",
        "is_in_use",
        "last_unix_seconds",
        "rows",
        "rows_counts",
        "run_requests",
        "run_requests_counts",
        "run_rows",
        "run_rows_counts",
        "run_seconds",
        "run_seconds_counts",
        "seconds",
        "seconds_counts",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        # Whether it has a variant that may have requests in flight, and so a gauge.
        self.is_in_use = False
        self.last_unix_seconds = 0.0
        self.rows = 0
        self.rows_counts = [0] * (len(ROWS_BUCKETS) + 1)
        # Both by stage, of requests that succeeded.
        self.seconds = [0.0] * len(STAGES)
        self.seconds_counts = tuple([0] * (len(SECONDS_BUCKETS) + 1) for _ in STAGES)
        self.failures: Counter[Code] = Counter()
        self.failed_seconds = 0.0
        # Misses, hits; and what those that the cache answered have in the above.
        self.cache = [0, 0]
        self.cached_rows = 0
        self.cached_seconds = [0.0] * len(STAGES)
        # Of all runs, whatever became of their requests.
        self.run_rows = self.run_requests = 0
        self.run_seconds = 0.0
        self.run_rows_counts = [0] * (len(ROWS_BUCKETS) + 1)
        self.run_requests_counts = [0] * (len(ROWS_BUCKETS) + 1)
        self.run_seconds_counts = [0] * (len(SECONDS_BUCKETS) + 1)
        # Of runs whose first request succeeded, by their rows.
        self.good_runs = 0
        self.batches: dict[int, Batch] = {}

    @property
    def successes(self) -> int:
        """Return how many requests succeeded."""
        return sum(self.rows_counts)

    @property
    def runs(self) -> int:
        """Return how many runs there were."""
        return sum(self.run_rows_counts)

    def add(self, record: Record) -> None:
        """Add a request that succeeded."""
        rows = record.rows
        self.rows += rows
        self.rows_counts[_ROWS_BUCKET_OF[rows] if rows <= _LARGEST_ROWS else -1] += 1
        # Five times the same, without a loop or a call, which would be half of what a request costs here.
        bucket, bounds, sums = bisect_left, SECONDS_BUCKETS, self.seconds
        decode, queue, run, encode, total = self.seconds_counts
        seconds = record.decode_seconds
        decode[bucket(bounds, seconds)] += 1
        sums[0] += seconds
        seconds = record.queue_seconds
        queue[bucket(bounds, seconds)] += 1
        sums[1] += seconds
        seconds = record.run_seconds
        run[bucket(bounds, seconds)] += 1
        sums[2] += seconds
        seconds = record.encode_seconds
        encode[bucket(bounds, seconds)] += 1
        sums[3] += seconds
        seconds = record.total_seconds
        total[bucket(bounds, seconds)] += 1
        sums[4] += seconds
        if record.cache_hit is not None:
            self._add_lookup(record)

    def _add_lookup(self, record: Record) -> None:
        self.cache[bool(record.cache_hit)] += 1
        if record.cache_hit:
            self.cached_rows += record.rows
            stages = (record.decode_seconds, 0.0, 0.0, record.encode_seconds, record.total_seconds)
            self.cached_seconds = [a + b for a, b in zip(self.cached_seconds, stages, strict=True)]

    def add_run(self, record: Record) -> None:
        """Add the run that a request leads, whether or not the request succeeded."""
        rows, requests, seconds = record.batch_rows, record.batch_requests, record.run_seconds
        self.run_rows += rows
        self.run_rows_counts[_ROWS_BUCKET_OF[rows] if rows <= _LARGEST_ROWS else -1] += 1
        self.run_requests += requests
        self.run_requests_counts[_ROWS_BUCKET_OF[requests] if requests <= _LARGEST_ROWS else -1] += 1
        self.run_seconds += seconds
        self.run_seconds_counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        if record.code is not _OK:
            return
        self.good_runs += 1
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= _MOST_SIZES:
                return
            batch = self.batches[rows] = Batch()
        batch.runs += 1
        batch.decode_seconds += record.decode_seconds
        batch.run_seconds += seconds
        batch.encode_seconds += record.encode_seconds


@dataclass(slots=True)
class Totals:
    """Everything of one variant since it was first asked, whatever its role; times in seconds by stage.

    `rows` are those that were run for requests that succeeded. `seconds` are of all that succeeded, and
    `cached_seconds` of those that the cache answered.
    """

    last_unix_seconds: float = 0.0
    success: int = 0
    failures: Counter[Code] = field(default_factory=Counter[Code])
    failed_seconds: float = 0.0
    rows: int = 0
    runs: int = 0
    good_runs: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cached_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cache_hits: int = 0
    cache_misses: int = 0
    batches: dict[int, Batch] = field(default_factory=dict[int, Batch])

    def add(self, tally: Tally) -> None:
        """Add what one answerer did."""
        self.last_unix_seconds = max(self.last_unix_seconds, tally.last_unix_seconds)
        self.success += tally.successes
        self.failures.update(tally.failures)
        self.failed_seconds += tally.failed_seconds
        self.rows += tally.rows - tally.cached_rows
        self.runs += tally.runs
        self.good_runs += tally.good_runs
        for place, stage in enumerate(STAGES):
            self.seconds[stage] += tally.seconds[place]
            self.cached_seconds[stage] += tally.cached_seconds[place]
        self.cache_misses += tally.cache[0]
        self.cache_hits += tally.cache[1]
        for rows, batch in tally.batches.items():
            whole = self.batches.setdefault(rows, Batch())
            whole.runs += batch.runs
            whole.decode_seconds += batch.decode_seconds
            whole.run_seconds += batch.run_seconds
            whole.encode_seconds += batch.encode_seconds


class Tallies:
    """Is told of every inference by the thread that answers it: quick, and raises nothing. Thread-safe."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._tallies: dict[Answerer, Tally] = {}
        self._rejected: Counter[tuple[str, Rejection]] = Counter()

    def begin(self, answerer: Answerer) -> None:
        """Count a request that starts to use a variant; `end` follows with the same answerer."""
        with self._lock:
            tally = self._tallies.get(answerer) or self._begun(answerer)
            tally.in_flight += 1
            tally.is_in_use = True

    def end(self, answerer: Answerer) -> None:
        """Count down when it is done with it."""
        with self._lock:
            self._tallies[answerer].in_flight -= 1

    def record(self, record: Record, ended: Answerer | None = None) -> None:
        """Count what became of a request, whether or not a variant was found for it, and the run it leads.

        Args:
            record: what became of it.
            ended: the answerer that it began to use, if it did; `end` does not follow then.
        """
        with self._lock:
            if ended is not None:
                self._tallies[ended].in_flight -= 1
            tally = self._tallies.get(record.answerer) or self._begun(record.answerer)
            tally.last_unix_seconds = self._wall_clock()
            if record.leads_run:
                tally.add_run(record)
            if record.code is _OK:
                tally.add(record)
                return
            tally.failures[record.code] += 1
            tally.failed_seconds += record.total_seconds
            if record.rejection is not None:
                self._rejected[record.answerer.model, record.rejection] += 1

    def _begun(self, answerer: Answerer) -> Tally:
        return self._tallies.setdefault(answerer, Tally())

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
            for answerer, tally in self._tallies.items():
                if not tally.in_flight and answerer[:2] == (model, variant):
                    tally.is_in_use = False

    def drop(self, model: str, variant: str) -> None:
        """Drop the counters of a variant that has been gone for long; "" is for those of the model itself.

        Whoever is still in flight there counts on, from nothing.
        """
        with self._lock:
            for answerer in [each for each in self._tallies if each[:2] == (model, variant)]:
                left = self._tallies.pop(answerer).in_flight
                if left:
                    self._begun(answerer).in_flight = left
            if not variant:
                for reason in Rejection:
                    self._rejected.pop((model, reason), None)

    def totals(self, model: str = "") -> Mapping[tuple[str, str], Totals]:
        """Return what was recorded up to now by model and variant, of one model or of all."""
        found: dict[tuple[str, str], Totals] = {}
        with self._lock:
            for answerer, tally in self._tallies.items():
                if model in ("", answerer.model):
                    found.setdefault(answerer[:2], Totals()).add(tally)
        return found
