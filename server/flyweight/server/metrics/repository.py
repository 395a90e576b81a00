"""The lifecycle's events as metrics: loads, swaps, unloads, readings of the repository."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable
from flyweight.server.metrics.histogram import Histogram

_VARIANT: Final = ("model", "variant")

# Loading reads, verifies, builds, warms up and checks: from tens of milliseconds to minutes for large models.
# A drain is as long as the longest request.
_LOAD_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_Key = tuple[str, str]


class _Events:
    """What happened to one variant."""

    __slots__ = ("drain_seconds", "load_seconds", "loads", "swaps", "unloads")

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.load_seconds = Histogram(_LOAD_BUCKETS)
        self.swaps = 0
        self.unloads = 0
        self.drain_seconds = Histogram(_LOAD_BUCKETS)


class RepositoryMetrics(NullObserver, Collector):
    """An Observer of the manager, called from its threads, and the collector of what it saw. Thread-safe."""

    def __init__(self, registry: CollectorRegistry, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._events: dict[_Key, _Events] = {}
        self._plan_errors: Counter[str] = Counter()
        # A series that is there from the start shows its first increase.
        self._scans = Counter({"ok": 0, "failed": 0})
        self._served: dict[_Key, LoadedVariant] = {}
        # Out of the table and not yet closed: since when, by name, longest first.
        self._draining: dict[_Key, deque[float]] = {}
        registry.register(self)

    def on_scan(self, *, ok: bool) -> None:
        """Count a reading of the repository."""
        with self._lock:
            self._scans["ok" if ok else "failed"] += 1

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        """Count and time a load."""
        with self._lock:
            events = self._of(loaded.model, loaded.name)
            events.loads["ok"] += 1
            events.load_seconds.add(seconds)

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:  # noqa: ARG002
        """Count a load that failed."""
        with self._lock:
            self._of(model, variant).loads["failed"] += 1

    def on_unload(self, model: str, variant: str) -> None:
        """Count an unloaded variant, and time its drain; of one name the first to go is closed first."""
        with self._lock:
            events = self._of(model, variant)
            events.unloads += 1
            since = self._draining.get((model, variant))
            if since:
                events.drain_seconds.add(self._monotonic() - since.popleft())
            if not since:
                self._draining.pop((model, variant), None)

    def on_plan_error(self, model: str, reason: str) -> None:  # noqa: ARG002
        """Count a traffic.yaml that cannot be followed."""
        with self._lock:
            self._plan_errors[model] += 1

    def on_table(self, table: RoutingTable) -> None:
        """Note who went out of the table, and who was replaced by another of the same name."""
        now = self._monotonic()
        served = {
            (model.name, name): loaded
            for model in table.models.values()
            for name, loaded in model.variants.items()
        }
        with self._lock:
            for key, before in self._served.items():
                after = served.get(key)
                if after is not before:
                    self._draining.setdefault(key, deque()).append(now)
                    self._of(*key).swaps += after is not None
            self._served = served

    def drop(self, model: str, variant: str) -> None:
        """Forget a variant that has been gone for long; a model, when `variant` is ""."""
        with self._lock:
            self._events.pop((model, variant), None)
            if not variant:
                self._plan_errors.pop(model, None)

    def _of(self, model: str, variant: str) -> _Events:
        return self._events.setdefault((model, variant), _Events())

    def describe(self) -> Iterable[Metric]:
        """Tell the names, without any series."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Make the metrics of what happened up to now."""
        loads, load_seconds, swaps, unloads, drains, plan_errors, scans = families = _families()
        with self._lock:
            for key, events in self._events.items():
                for outcome, count in events.loads.items():
                    loads.add_metric([*key, outcome], count)
                if events.load_seconds.count:
                    events.load_seconds.show(load_seconds, key)
                    swaps.add_metric(list(key), events.swaps)
                if events.unloads:
                    unloads.add_metric(list(key), events.unloads)
                    events.drain_seconds.show(drains, key)
            for model, count in self._plan_errors.items():
                plan_errors.add_metric([model], count)
            for outcome, count in self._scans.items():
                scans.add_metric([outcome], count)
        yield from families


def _families() -> tuple[
    CounterMetricFamily,
    HistogramMetricFamily,
    CounterMetricFamily,
    CounterMetricFamily,
    HistogramMetricFamily,
    CounterMetricFamily,
    CounterMetricFamily,
]:
    return (
        CounterMetricFamily(
            "flyweight_loads",
            "Attempts to load a variant by outcome (ok, failed): do new variants arrive?",
            labels=(*_VARIANT, "outcome"),
        ),
        HistogramMetricFamily(
            "flyweight_load_seconds",
            "Time of successful loads, digests to golden check: how long until a new variant serves?",
            labels=_VARIANT,
        ),
        CounterMetricFamily(
            "flyweight_swaps",
            "Variants replaced by a newer one of their name: how often are they published again?",
            labels=_VARIANT,
        ),
        CounterMetricFamily(
            "flyweight_unloads", "Variants unloaded: are old ones really gone?", labels=_VARIANT
        ),
        HistogramMetricFamily(
            "flyweight_drain_seconds",
            "Time from out of the traffic to closed: how long do old requests hold a variant?",
            labels=_VARIANT,
        ),
        CounterMetricFamily(
            "flyweight_traffic_plan_errors",
            "traffic.yaml files that could not be followed: did somebody mistype a split?",
            labels=("model",),
        ),
        CounterMetricFamily(
            "flyweight_repository_scans",
            "Readings of the repository by outcome (ok, failed): is it still watched?",
            labels=("outcome",),
        ),
    )
