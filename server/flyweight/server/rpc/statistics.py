"""ModelStatistics: how often each variant was asked since the server started, and where the time went.

The durations are those of Triton's statistics extension: success and fail are whole requests; queue,
compute_input, compute_infer and compute_output count successful requests that were run, cache_hit those that
were not; the batch statistics count runs by their rows, each once, however many requests shared it.
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
from flyweight.server.rpc.records import Record
from flyweight.server.runtime.usage import memory_figure, memory_kinds

_NANOSECONDS: Final = 1_000_000_000
# How many variants are remembered before those that are gone are forgotten.
_MOST_TALLIES: Final = 1024
# How many sizes of runs are told apart for one variant: batches have a few; a caller may send any.
_MOST_SIZES: Final = 256


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
class _Stages:
    """Where the time of requests, or of the runs with one number of rows, went."""

    decode: _Duration = field(default_factory=_Duration)
    run: _Duration = field(default_factory=_Duration)
    encode: _Duration = field(default_factory=_Duration)

    def add(self, record: Record) -> None:
        self.decode.add(record.decode_seconds)
        self.run.add(record.run_seconds)
        self.encode.add(record.encode_seconds)


@dataclass(slots=True)
class _Tally:
    """What is known of one variant; its owner's lock guards it."""

    last_unix_seconds: float = 0.0
    rows: int = 0
    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    cache_hit: _Duration = field(default_factory=_Duration)
    cache_misses: int = 0
    requests: _Stages = field(default_factory=_Stages)
    runs: int = 0
    batches: dict[int, _Stages] = field(default_factory=dict[int, _Stages])

    def add(self, record: Record) -> None:
        if record.code is not Code.OK:
            self.fail.add(record.total_seconds)
            return
        self.rows += record.rows
        self.success.add(record.total_seconds)
        if not record.batch_rows:
            self.cache_hit.add(record.total_seconds)
            return
        self.cache_misses += record.cache_hit is False
        self.queue.add(record.queue_seconds)
        self.requests.add(record)
        if record.leads_run:
            self.runs += 1
            batch = self.batches.get(record.batch_rows)
            if batch is None:
                if len(self.batches) >= _MOST_SIZES:
                    return
                batch = self.batches[record.batch_rows] = _Stages()
            batch.add(record)


class Statistics:
    """Keeps the tallies, as a Listener, and answers ModelStatistics from them. Thread-safe."""

    def __init__(self, models: Models, wall_clock: Callable[[], float] = time.time) -> None:
        self._models = models
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def record(self, record: Record) -> None:
        """Count a request for the variant that answered it, or failed to."""
        answerer = record.answerer
        if not answerer.variant:
            return
        with self._lock:
            tally = self._tallies.get((answerer.model, answerer.variant))
            if tally is None:
                self._forget_gone()
                tally = self._tallies[answerer.model, answerer.variant] = _Tally()
            tally.last_unix_seconds = self._wall_clock()
            tally.add(record)

    def _forget_gone(self) -> None:
        """Make room, once there are many, by dropping variants that are gone; the lock is held."""
        if len(self._tallies) < _MOST_TALLIES:
            return
        table = self._models.table
        served = {(model.name, name) for model in table.models.values() for name in model.variants}
        self._tallies = {key: tally for key, tally in self._tallies.items() if key in served}

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
        with self._lock:
            tally = self._tallies.get((variant.model, variant.name), _Tally())
            return ModelStatistics(
                name=variant.model,
                version=variant.name,
                last_inference=round(tally.last_unix_seconds * 1000),
                inference_count=tally.rows,
                execution_count=tally.runs,
                inference_stats=_durations(tally),
                batch_stats=[_batch(rows, tally.batches[rows]) for rows in sorted(tally.batches)],
                memory_usage=_memory(variant),
            )


def _memory(variant: LoadedVariant) -> list[MemoryUsage]:
    """Return the one figure under the type that Triton has for memory, and then every kind that is known."""
    usage, load_pss_bytes = variant.runtime.usage(), variant.memory.load_pss_bytes
    kinds = {
        "CPU": memory_figure(usage, load_pss_bytes),
        "file": usage.file_bytes,
        **memory_kinds(usage, load_pss_bytes),
    }
    return [MemoryUsage(type=kind, byte_size=value) for kind, value in kinds.items()]


def _durations(tally: _Tally) -> InferStatistics:
    return InferStatistics(
        success=tally.success.message(),
        fail=tally.fail.message(),
        queue=tally.queue.message(),
        compute_input=tally.requests.decode.message(),
        compute_infer=tally.requests.run.message(),
        compute_output=tally.requests.encode.message(),
        cache_hit=tally.cache_hit.message(),
        cache_miss=StatisticDuration(count=tally.cache_misses),
    )


def _batch(rows: int, batch: _Stages) -> InferBatchStatistics:
    return InferBatchStatistics(
        batch_size=rows,
        compute_input=batch.decode.message(),
        compute_infer=batch.run.message(),
        compute_output=batch.encode.message(),
    )
