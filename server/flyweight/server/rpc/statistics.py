"""ModelStatistics: how often each variant was asked since it was last away for long, and where the time went.

The figures are those of Triton's statistics extension. success, queue and fail count whole requests; of
those that succeeded, compute_input, compute_infer and compute_output count what was run, and cache_hit what
was not, which inference_count and execution_count leave out. The batch statistics count runs by their rows,
each once, however many requests shared it.
"""

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
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.tallies import Batch, Tallies, Totals
from flyweight.server.runtime.usage import memory_figure, memory_kinds

_NANOSECONDS: Final = 1_000_000_000


class Statistics:
    """Answers ModelStatistics from the tallies. Thread-safe."""

    def __init__(self, models: Models, tallies: Tallies) -> None:
        self._models = models
        self._tallies = tallies

    def model_statistics(self, body: bytes, _call: Call) -> bytes:
        """Tell the statistics of one variant, of a model's variants, or of all.

        Raises:
            UnknownModel, NotReady, UnknownVariant: there is no such variant.
        """
        request = parse(ModelStatisticsRequest, body)
        table = self._models.table
        models = [table.model(request.name)] if request.name else list(table.models.values())
        response, totals = ModelStatisticsResponse(), self._tallies.totals(request.name)
        for model in sorted(models, key=lambda served: served.name):
            chosen = [model.variant(request.version)] if request.version else model.variants.values()
            for variant in sorted(chosen, key=lambda loaded: loaded.name):
                found = totals.get((variant.model, variant.name), Totals())
                response.model_stats.append(_statistics(variant, found))
        return response.SerializeToString()


def _statistics(variant: LoadedVariant, totals: Totals) -> ModelStatistics:
    return ModelStatistics(
        name=variant.model,
        version=variant.name,
        last_inference=round(totals.last_unix_seconds * 1000),
        inference_count=totals.rows,
        execution_count=totals.good_runs,
        inference_stats=_durations(totals),
        batch_stats=[_batch(rows, totals.batches[rows]) for rows in sorted(totals.batches)],
        memory_usage=_memory(variant),
    )


def _memory(variant: LoadedVariant) -> list[MemoryUsage]:
    """Return the one figure under the type that Triton has for memory, and then every kind that is known."""
    usage, validated = variant.runtime.usage(), variant.validated_pss_bytes
    figure = memory_figure(usage, validated)
    kinds = {
        **({"CPU": figure} if figure else {}),
        "file": usage.file_bytes,
        **memory_kinds(usage, variant.memory.load_pss_bytes, validated),
    }
    return [MemoryUsage(type=kind, byte_size=value) for kind, value in kinds.items()]


def _durations(totals: Totals) -> InferStatistics:
    """Return where the time of requests went, the runs' stages without those that the cache answered."""
    ran = totals.success - totals.cache_hits
    seconds = {stage: totals.seconds[stage] - totals.cached_seconds[stage] for stage in totals.seconds}
    return InferStatistics(
        success=_duration(totals.success, totals.seconds["total"]),
        fail=_duration(totals.failures.total(), totals.failed_seconds),
        queue=_duration(totals.success, seconds["queue"]),
        compute_input=_duration(ran, seconds["decode"]),
        compute_infer=_duration(ran, seconds["run"]),
        compute_output=_duration(ran, seconds["encode"]),
        cache_hit=_duration(totals.cache_hits, totals.cached_seconds["total"]),
        cache_miss=_duration(totals.cache_misses, 0.0),
    )


def _batch(rows: int, batch: Batch) -> InferBatchStatistics:
    return InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(batch.runs, batch.decode_seconds),
        compute_infer=_duration(batch.runs, batch.run_seconds),
        compute_output=_duration(batch.runs, batch.encode_seconds),
    )


def _duration(count: int, seconds: float) -> StatisticDuration:
    # Of what came and was taken away again a rounding error may be left.
    return StatisticDuration(count=count, ns=max(0, round(seconds * _NANOSECONDS)))
