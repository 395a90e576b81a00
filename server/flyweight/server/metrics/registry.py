"""All metrics of one server in one registry of its own, so that two servers can live in one process."""

import time
from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable
from flyweight.server.metrics.cache import CacheMetrics
from flyweight.server.metrics.calls import CallMetrics
from flyweight.server.metrics.departed import Departed
from flyweight.server.metrics.process import ProcessMemory
from flyweight.server.metrics.repository import RepositoryMetrics
from flyweight.server.metrics.requests import RequestMetrics
from flyweight.server.metrics.triton import TritonMetrics
from flyweight.server.metrics.variants import VariantMetrics


class Metrics(NullObserver):
    """The registry, the recorder of requests, and the observer of the lifecycle: one for all its parts.

    Args:
        triton_names: whether Triton's names are shown as well.
        monotonic: the clock.
    """

    def __init__(self, *, triton_names: bool = True, monotonic: Callable[[], float] = time.monotonic) -> None:
        # A second series for each counter and bucket set, with the time it was made; nothing asks for it. The
        # library has this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's annotations are partial
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = RequestMetrics(self.registry)
        self.repository = RepositoryMetrics(self.registry, monotonic)
        self.variants = VariantMetrics(self.registry)
        self.calls = CallMetrics(self.registry)
        self.cache = CacheMetrics(self.registry)
        self._departed = Departed(self._drop, monotonic)
        self._served: frozenset[tuple[str, str]] = frozenset()
        self.registry.register(ProcessMemory())
        if triton_names:
            TritonMetrics(self.registry, self.requests, self.variants)
        Gauge(
            "flyweight_build_info",
            "Always 1; the labels are versions: what is running?",
            ("version", "onnxruntime"),
            registry=self.registry,
        ).labels(version("flyweight"), version("onnxruntime")).set(1)

    def on_scan(self, *, ok: bool) -> None:
        """Count it, and take the occasion to forget who has been gone for long."""
        self.repository.on_scan(ok=ok)
        self._departed.sweep()

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        """Count it."""
        self.repository.on_load(loaded, seconds)

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:
        """Count it."""
        self.repository.on_load_failed(model, variant, reason, seconds)
        self._departed.mention((model, variant))

    def on_plan_error(self, model: str, reason: str) -> None:
        """Count it."""
        self.repository.on_plan_error(model, reason)
        self._departed.mention((model, ""))

    def on_table(self, table: RoutingTable) -> None:
        """Show it; tell an unloaded variant from a replaced one, and who is gone."""
        models = table.models.keys() | table.waiting
        for model in models:
            self.requests.expect(model)
        self._served = frozenset(
            (model.name, variant) for model in table.models.values() for variant in model.variants
        )
        self.repository.on_table(table)
        self.variants.on_table(table)
        self._departed.show(self._served | {(model, "") for model in models})

    def on_unload(self, model: str, variant: str) -> None:
        """Count it, and forget the requests in flight of a variant that is gone."""
        self.repository.on_unload(model, variant)
        if (model, variant) not in self._served:
            self.requests.forget(model, variant)
            self._departed.mention((model, variant))

    def _drop(self, model: str, variant: str) -> None:
        self.requests.drop(model, variant)
        self.repository.drop(model, variant)
