"""All metrics of one server in one registry of its own, so that two servers can live in one process."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.metrics.process import ProcessMemory
from flyweight.server.metrics.repository import RepositoryMetrics
from flyweight.server.metrics.requests import RequestMetrics


class Metrics(NullObserver):
    """The registry, the recorder of requests, and the observers of the lifecycle."""

    def __init__(self) -> None:
        # A second series for each counter and bucket set, with the time it was made; nothing asks for it. The
        # library has this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's annotations are partial
        self.registry = CollectorRegistry(auto_describe=True)
        self.requests = RequestMetrics(self.registry)
        self.repository = RepositoryMetrics(self.registry)
        self._served: frozenset[tuple[str, str]] = frozenset()
        self.registry.register(ProcessMemory())
        Gauge(
            "flyweight_build_info",
            "Always 1; the labels are versions: what is running?",
            ("version", "onnxruntime"),
            registry=self.registry,
        ).labels(version("flyweight"), version("onnxruntime")).set(1)

    def on_table(self, table: RoutingTable) -> None:
        """Remember what is served, to tell an unloaded variant from a replaced one."""
        for model in table.models.keys() | table.waiting:
            self.requests.expect(model)
        self._served = frozenset(
            (model.name, variant) for model in table.models.values() for variant in model.variants
        )

    def on_unload(self, model: str, variant: str) -> None:
        """Forget the requests in flight of a variant that is gone."""
        if (model, variant) not in self._served:
            self.requests.forget(model, variant)
