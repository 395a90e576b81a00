"""The same numbers under Triton's names, so that dashboards made for it show something here as well.

Names, labels and meanings: docs/user_guide/metrics.md of triton-inference-server/server. Nothing is counted
for them; they are computed from what RequestMetrics has when somebody asks. Their type is "untyped", for
Prometheus's text format has a counter's name end in _total, and Triton's do not.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from flyweight.server.errors import Code
from flyweight.server.metrics.requests import RequestMetrics
from flyweight.server.metrics.variants import VariantMetrics
from flyweight.server.rpc.tallies import Totals
from flyweight.server.runtime.memory import read_fields

_MEMINFO: Final = Path("/proc/meminfo")
_MICROSECONDS: Final = 1e6
_DURATIONS: Final = {
    "nv_inference_request_duration_us": "total",
    "nv_inference_queue_duration_us": "queue",
    "nv_inference_compute_input_duration_us": "decode",
    "nv_inference_compute_infer_duration_us": "run",
    "nv_inference_compute_output_duration_us": "encode",
}
# Triton's reasons. What is neither turned away nor the caller's own doing is the model's.
_REASONS: Final = {
    Code.RESOURCE_EXHAUSTED: "REJECTED",
    Code.DEADLINE_EXCEEDED: "REJECTED",
    Code.CANCELLED: "CANCELED",
    Code.INTERNAL: "BACKEND",
    Code.UNAVAILABLE: "BACKEND",
}
_HELP: Final = {
    "nv_inference_request_success": "Number of successful inference requests, all batch sizes",
    "nv_inference_request_failure": "Number of failed inference requests, all batch sizes",
    "nv_inference_count": "Number of inferences performed (a batch of n counts n)",
    "nv_inference_exec_count": "Number of model executions performed",
    **{name: f"Cumulative {stage} time of requests in microseconds" for name, stage in _DURATIONS.items()},
    "nv_inference_pending_request_count": "Number of requests that wait for a run now",
    "nv_cache_num_hits_per_model": "Number of response cache hits",
    "nv_cache_num_misses_per_model": "Number of response cache misses",
    "nv_cpu_memory_total_bytes": "Memory of the machine in bytes",
    "nv_cpu_memory_used_bytes": "Memory of the machine that is in use, in bytes",
}


class TritonMetrics(Collector):
    """Collects Triton's metrics from those of this server."""

    def __init__(
        self,
        registry: CollectorRegistry,
        requests: RequestMetrics,
        variants: VariantMetrics,
        meminfo: Path = _MEMINFO,
    ) -> None:
        self._requests = requests
        self._variants = variants
        self._meminfo = meminfo
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return _families().values()

    def collect(self) -> Iterator[Metric]:
        """Compute them."""
        families = _families()
        for (model, variant), totals in self._requests.totals().items():
            _show(families, {"model": model, "version": variant}, totals)
        for (model, variant), waiting in self._variants.waiting().items():
            labels = {"model": model, "version": variant}
            _add(families["nv_inference_pending_request_count"], labels, waiting)
        fields = read_fields(self._meminfo)
        if {"MemTotal", "MemAvailable"} <= fields.keys():
            total = fields["MemTotal"]
            _add(families["nv_cpu_memory_total_bytes"], {}, total)
            _add(families["nv_cpu_memory_used_bytes"], {}, total - fields["MemAvailable"])
        yield from families.values()


def _families() -> dict[str, Metric]:
    return {name: Metric(name, text, "unknown") for name, text in _HELP.items()}


def _show(families: dict[str, Metric], labels: dict[str, str], totals: Totals) -> None:
    _add(families["nv_inference_request_success"], labels, totals.success)
    failures: dict[str, int] = {}
    for code, count in totals.failures.items():
        reason = _REASONS.get(code, "OTHER")
        failures[reason] = failures.get(reason, 0) + count
    for reason, count in failures.items():
        _add(families["nv_inference_request_failure"], {**labels, "reason": reason}, count)
    _add(families["nv_inference_count"], labels, totals.rows)
    _add(families["nv_inference_exec_count"], labels, totals.runs)
    for name, stage in _DURATIONS.items():
        _add(families[name], labels, round(totals.seconds[stage] * _MICROSECONDS))
    if totals.cache_hits or totals.cache_misses:
        _add(families["nv_cache_num_hits_per_model"], labels, totals.cache_hits)
        _add(families["nv_cache_num_misses_per_model"], labels, totals.cache_misses)


def _add(family: Metric, labels: dict[str, str], value: float) -> None:
    family.add_sample(family.name, labels, value)
