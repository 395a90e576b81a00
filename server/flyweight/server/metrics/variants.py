"""What is served and what it takes, read from the newest routing table when somebody asks.

Every gauge is a function of that table, so none outlives the variant it tells of.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable
from flyweight.server.metrics.request_families import WHO
from flyweight.server.runtime.usage import Usage, memory_kinds

_VARIANT: Final = ("model", "variant")


class VariantMetrics(NullObserver, Collector):
    """An Observer of the manager, and the collector of what its table holds. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._table = RoutingTable()
        registry.register(self)

    def on_table(self, table: RoutingTable) -> None:
        """Tell of this table from now on."""
        self._table = table

    def waiting(self) -> dict[tuple[str, str], int]:
        """Return how many requests wait for a run, by model and variant."""
        return {
            (model.name, name): len(variant.lane.queue)
            for model in self._table.models.values()
            for name, variant in model.variants.items()
        }

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return _Families().all()

    def collect(self) -> Iterator[Metric]:
        """Read what every variant takes now: some files of /proc for each that has a process of its own."""
        families = _Families()
        for model in self._table.models.values():
            for name, variant in model.variants.items():
                role = model.role_of(name).value
                families.weight.add_metric([model.name, name, role], model.plan.weight_of(name))
                families.ready.add_metric([model.name, name], 1.0)
                families.queued.add_metric([model.name, name, role], len(variant.lane.queue))
                _show_usage(families, variant, variant.runtime.usage())
        yield from families.all()


class _Families:
    """One scrape's worth of metrics, empty."""

    def __init__(self) -> None:
        self.weight = GaugeMetricFamily(
            "flyweight_traffic_weight_ratio",
            "Share of the unpinned traffic, 0 to 1: who answers?",
            labels=WHO,
        )
        self.ready = GaugeMetricFamily(
            "flyweight_variant_ready", "1 while the variant is served: what is there?", labels=_VARIANT
        )
        self.queued = GaugeMetricFamily(
            "flyweight_queue_requests", "Requests that wait for a run now: is there a backlog?", labels=WHO
        )
        self.file_bytes = GaugeMetricFamily(
            "flyweight_variant_file_bytes",
            "Size of the variant's files: what does it take on disk?",
            labels=_VARIANT,
        )
        self.memory = GaugeMetricFamily(
            "flyweight_variant_memory_bytes",
            "Memory by kind, described in docs/memory-and-metrics.md; own_pss is what the variant adds to a "
            "process that holds only it, load_pss an estimate of it: what does it take in memory?",
            labels=(*_VARIANT, "kind"),
        )
        self.cpu = CounterMetricFamily(
            "flyweight_variant_cpu_seconds",
            "Processor time of the variant's own process: what does it cost to run?",
            labels=_VARIANT,
        )
        self.restarts = CounterMetricFamily(
            "flyweight_worker_restarts",
            "Times that the variant's process was started again: does it crash?",
            labels=_VARIANT,
        )

    def all(self) -> Iterator[Metric]:
        """Return every one, in the order in which they are shown."""
        yield from (self.weight, self.ready, self.queued, self.file_bytes, self.memory)
        yield from (self.cpu, self.restarts)


def _show_usage(families: _Families, variant: LoadedVariant, usage: Usage) -> None:
    labels = [variant.model, variant.name]
    families.file_bytes.add_metric(labels, usage.file_bytes)
    kinds = memory_kinds(usage, variant.memory.load_pss_bytes, variant.validated_pss_bytes)
    for kind, value in kinds.items():
        families.memory.add_metric([*labels, kind], value)
    if usage.cpu_seconds is not None:
        families.cpu.add_metric(labels, usage.cpu_seconds)
    if usage.restarts is not None:
        families.restarts.add_metric(labels, usage.restarts)
