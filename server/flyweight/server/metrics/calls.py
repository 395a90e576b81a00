"""Calls of every RPC by how they ended: what is refused before a model is asked is found here only."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from flyweight.server.errors import Code

# Each RPC's path ("" for those that there are not), a status, and how many calls ended with it.
CallTotals = Callable[[], Iterable[tuple[str, Code, int]]]


class CallMetrics(Collector):
    """Collects flyweight_calls_total from whoever counts the calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._totals: CallTotals = tuple
        registry.register(self)

    def show(self, totals: CallTotals) -> None:
        """Tell of these counts from now on."""
        self._totals = totals

    def describe(self) -> Iterable[Metric]:
        """Tell the name, without any series."""
        yield _family()

    def collect(self) -> Iterator[Metric]:
        """Make the metric of what was counted up to now."""
        family = _family()
        for path, code, count in self._totals():
            service, _, method = path.removeprefix("/").partition("/")
            family.add_metric([service, method, code.name], count)
        yield family


def _family() -> CounterMetricFamily:
    return CounterMetricFamily(
        "flyweight_calls",
        "Calls of every RPC by the gRPC status they ended with: who is refused before a model is asked?",
        labels=("service", "method", "code"),
    )
