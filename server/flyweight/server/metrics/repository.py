"""What is served and what it takes: the lifecycle's events and the routing table as metrics.

Every gauge is a function of the newest routing table, so none outlives the variant it tells of.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.metrics.requests import WHO

_VARIANT: Final = ("model", "variant")

# Loading reads, verifies, builds, warms up and checks: from tens of milliseconds to minutes for large models.
_LOAD_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class _TableGauge:
    """A gauge that shows what the newest table says, and forgets what is no longer in it."""

    def __init__(
        self, name: str, question: str, labels: tuple[str, ...], registry: CollectorRegistry
    ) -> None:
        self._gauge = Gauge(name, question, labels, registry=registry)
        self._shown: frozenset[tuple[str, ...]] = frozenset()

    def show(self, values: dict[tuple[str, ...], float]) -> None:
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._shown - values.keys():
            self._gauge.remove(*labels)
        self._shown = frozenset(values)


class RepositoryMetrics(NullObserver):
    """An Observer of the manager, called from its threads one at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._weight = _TableGauge(
            "flyweight_traffic_weight_ratio",
            "Share of the unpinned traffic, 0 to 1: who answers?",
            WHO,
            registry,
        )
        self._ready = _TableGauge(
            "flyweight_variant_ready", "1 while the variant is served: what is there?", _VARIANT, registry
        )
        self._file_bytes = _TableGauge(
            "flyweight_variant_file_bytes",
            "Size of the variant's files: what does it take on disk?",
            _VARIANT,
            registry,
        )
        self._memory_bytes = _TableGauge(
            "flyweight_variant_memory_bytes",
            "Memory: load_pss is how much the server grew while loading it, validated_pss what a process of "
            "its own took when it was published: what does it take in memory?",
            (*_VARIANT, "kind"),
            registry,
        )
        self._add_counters(registry)

    def _add_counters(self, registry: CollectorRegistry) -> None:
        self._loads = Counter(
            "flyweight_loads",
            "Attempts to load a variant by outcome (ok, failed): do new variants arrive?",
            (*_VARIANT, "outcome"),
            registry=registry,
        )
        self._unloads = Counter(
            "flyweight_unloads", "Variants unloaded: are old ones really gone?", _VARIANT, registry=registry
        )
        self._load_seconds = Histogram(
            "flyweight_load_seconds",
            "Time of successful loads, digests to golden check: how long until a new variant serves?",
            _VARIANT,
            buckets=_LOAD_BUCKETS,
            registry=registry,
        )
        self._plan_errors = Counter(
            "flyweight_traffic_plan_errors",
            "traffic.yaml files that could not be followed: did somebody mistype a split?",
            ("model",),
            registry=registry,
        )
        self._scans = Counter(
            "flyweight_repository_scans",
            "Readings of the repository by outcome (ok, failed): is it still watched?",
            ("outcome",),
            registry=registry,
        )
        # A series that is there from the start shows its first increase.
        for outcome in ("ok", "failed"):
            self._scans.labels(outcome)

    def on_scan(self, *, ok: bool) -> None:
        """Count a reading of the repository."""
        self._scans.labels("ok" if ok else "failed").inc()

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        """Count and time a load."""
        self._loads.labels(loaded.model, loaded.name, "ok").inc()
        self._load_seconds.labels(loaded.model, loaded.name).observe(seconds)

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:  # noqa: ARG002
        """Count a load that failed."""
        self._loads.labels(model, variant, "failed").inc()

    def on_unload(self, model: str, variant: str) -> None:
        """Count an unloaded variant."""
        self._unloads.labels(model, variant).inc()

    def on_plan_error(self, model: str, reason: str) -> None:  # noqa: ARG002
        """Count a traffic.yaml that cannot be followed."""
        self._plan_errors.labels(model).inc()

    def on_table(self, table: RoutingTable) -> None:
        """Show what is served now."""
        models = list(table.models.values())
        variants = [variant for model in models for variant in model.variants.values()]
        self._weight.show({labels: value for model in models for labels, value in _weights(model).items()})
        self._ready.show({(variant.model, variant.name): 1.0 for variant in variants})
        self._file_bytes.show(
            {(variant.model, variant.name): variant.memory.file_bytes for variant in variants}
        )
        self._memory_bytes.show(
            {labels: value for variant in variants for labels, value in _memory(variant).items()}
        )


def _weights(model: ServedModel) -> dict[tuple[str, ...], float]:
    return {
        (model.name, name, model.role_of(name).value): model.plan.weight_of(name) for name in model.variants
    }


def _memory(variant: LoadedVariant) -> dict[tuple[str, ...], float]:
    shown: dict[tuple[str, ...], float] = {
        (variant.model, variant.name, "load_pss"): variant.memory.load_pss_bytes
    }
    if variant.manifest is not None and variant.manifest.footprint.pss_bytes:
        shown[variant.model, variant.name, "validated_pss"] = variant.manifest.footprint.pss_bytes
    return shown
