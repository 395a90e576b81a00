"""ModelStatistics: how often each variant was asked since the server started, and where the time went.

The durations are those of Triton's statistics extension: success and fail are whole requests; queue,
compute_input, compute_infer and compute_output count successful requests only.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import (
    InferBatchStatistics,
    InferStatistics,
    MemoryUsage,
    ModelStatistics,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    StatisticDuration,
)
from flyweight.server.errors import Code
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.records import Answerer, Record

_NANOSECONDS: Final = 1_000_000_000


@dataclass(slots=True)
class _Duration:
    """A count of events, and the seconds they took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def message(self) -> StatisticDuration:
        return StatisticDuration(count=self.count, ns=round(self.seconds * _NANOSECONDS))


@dataclass(slots=True)
class _Batch:
    """Where the time of the runs with one number of rows went."""

    decode: _Duration = field(default_factory=_Duration)
    run: _Duration = field(default_factory=_Duration)
    encode: _Duration = field(default_factory=_Duration)


@dataclass(slots=True)
class _Tally:
    """What is known of one variant; its owner's lock guards it."""

    last_unix_seconds: float = 0.0
    rows: int = 0
    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    batches: dict[int, _Batch] = field(default_factory=dict[int, _Batch])


class Statistics:
    """Keeps the tallies, as a Recorder, and answers ModelStatistics from them. Thread-safe."""

    def __init__(self, models: Models, wall_clock: Callable[[], float] = time.time) -> None:
        self._models = models
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def begin(self, answerer: Answerer) -> None:
        """Ignore it: only what is done is counted."""

    def end(self, answerer: Answerer) -> None:
        """Ignore it: `record` tells more."""

    def record(self, record: Record) -> None:
        """Count a request for the variant that answered it, or failed to."""
        answerer = record.answerer
        if not answerer.variant:
            return
        with self._lock:
            tally = self._tallies.get((answerer.model, answerer.variant))
            if tally is None:
                tally = self._tallies[answerer.model, answerer.variant] = _Tally()
            tally.last_unix_seconds = self._wall_clock()
            if record.code is not Code.OK:
                tally.fail.add(record.total_seconds)
                return
            tally.rows += record.rows
            tally.success.add(record.total_seconds)
            tally.queue.add(record.queue_seconds)
            batch = tally.batches.get(record.rows)
            if batch is None:
                batch = tally.batches[record.rows] = _Batch()
            batch.decode.add(record.decode_seconds)
            batch.run.add(record.run_seconds)
            batch.encode.add(record.encode_seconds)

    def model_statistics(self, body: bytes, _call: Call) -> bytes:
        """Tell the statistics of one variant, of a model's variants, or of all.

        Raises:
            UnknownModel, NotReady, UnknownVariant: there is no such variant.
        """
        request = parse(ModelStatisticsRequest, body)
        table = self._models.table
        models = [table.model(request.name)] if request.name else list(table.models.values())
        response = ModelStatisticsResponse()
        for model in sorted(models, key=lambda served: served.name):
            chosen = [model.variant(request.version)] if request.version else model.variants.values()
            for variant in sorted(chosen, key=lambda loaded: loaded.name):
                response.model_stats.append(self._of(variant))
        return response.SerializeToString()

    def _of(self, variant: LoadedVariant) -> ModelStatistics:
        memory = MemoryUsage(type="CPU", byte_size=variant.memory.load_pss_bytes)
        with self._lock:
            tally = self._tallies.get((variant.model, variant.name), _Tally())
            return ModelStatistics(
                name=variant.model,
                version=variant.name,
                last_inference=round(tally.last_unix_seconds * 1000),
                inference_count=tally.rows,
                # One run per request, until requests are batched together.
                execution_count=tally.success.count,
                inference_stats=_durations(tally),
                batch_stats=[_batch(rows, tally.batches[rows]) for rows in sorted(tally.batches)],
                memory_usage=[memory],
            )


def _durations(tally: _Tally) -> InferStatistics:
    batches = tally.batches.values()
    return InferStatistics(
        success=tally.success.message(),
        fail=tally.fail.message(),
        queue=tally.queue.message(),
        compute_input=_sum([batch.decode for batch in batches]),
        compute_infer=_sum([batch.run for batch in batches]),
        compute_output=_sum([batch.encode for batch in batches]),
        cache_hit=StatisticDuration(),
        cache_miss=StatisticDuration(),
    )


def _sum(durations: list[_Duration]) -> StatisticDuration:
    seconds = sum(duration.seconds for duration in durations)
    return _Duration(sum(duration.count for duration in durations), seconds).message()


def _batch(rows: int, batch: _Batch) -> InferBatchStatistics:
    return InferBatchStatistics(
        batch_size=rows,
        compute_input=batch.decode.message(),
        compute_infer=batch.run.message(),
        compute_output=batch.encode.message(),
    )
