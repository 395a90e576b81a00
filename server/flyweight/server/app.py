"""The server: everything put together, started and stopped in an order that has its reasons."""

import gc
import logging
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

from flyweight.server.addresses import address_of
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.caching import ResponseCache
from flyweight.server.checking import faults_of
from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.metrics import Endpoint, Metrics, Probes
from flyweight.server.rpc.access import access_from
from flyweight.server.rpc.access_log import AccessLog
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import as_it_is
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.compat import in_tritons_words
from flyweight.server.rpc.extensions import Extensions
from flyweight.server.rpc.health import Health
from flyweight.server.rpc.idle import IdleTrim
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.methods import SERVICE_NAMES, all_methods
from flyweight.server.rpc.reflection import Reflection
from flyweight.server.runtime.entries import FactoryWithEntries
from flyweight.server.runtime.headroom import free_bytes
from flyweight.server.runtime.kinds import make_factory
from flyweight.server.runtime.probing import Prober
from flyweight.server.runtime.seam import RuntimeFactory
from flyweight.server.security.clients import ClientLimits
from flyweight.server.settings import Compat, ModelControl, ServerSettings

logger = logging.getLogger(__name__)

# How long the first load of everything may take before the server serves what there is: a folder that is
# copied slowly must not keep the others from being served.
_SETTLE_SECONDS: Final = 300.0

# Requests leave no circles behind, so there is next to nothing to collect; with Python's own threshold of 700
# the collector would look for it every twenty requests.
_COLLECTOR_THRESHOLDS: Final = (20_000, 20, 20)

# What calls that never end by themselves (health watches, reflection streams) get before they are cut, and
# what the network gets to carry the last responses away.
_LAST_CALLS_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Started:
    """Where a started server is reached, and what it serves."""

    address: str
    metrics_url: str
    models: int
    variants: int

    def __str__(self) -> str:
        """Return the ready line that scripts wait for."""
        return (
            f"flyweight ready grpc={self.address} metrics={self.metrics_url} "
            f"models={self.models} variants={self.variants}"
        )


class Server:
    """One server over one repository. `start` and `stop` are called once each, from one thread."""

    def __init__(self, settings: ServerSettings, factory: RuntimeFactory | None = None) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._metrics = Metrics(triton_names=settings.triton_metrics)
        self._gate = Gate(settings.max_in_flight)
        self._prober = _prober(settings, self._gate) if settings.measure_memory else None
        self._health = Health(SERVICE_NAMES)
        self._scheduler = Scheduler(settings.runs_at_once())
        self._manager = Manager(
            _manager_settings(settings),
            _with_entries(
                factory or make_factory(settings.runtime, self._prober, settings.runs_at_once()), settings
            ),
            observers=(self._metrics, self._health),
        )
        self._extensions = Extensions.from_settings(settings)
        wording = in_tritons_words if settings.compat is Compat.TRITON else as_it_is
        self._cache = ResponseCache(settings.response_cache_bytes)
        inside = Inside(
            self._manager,
            self._gate,
            self._scheduler,
            self._metrics.requests,
            ClientLimits(settings.max_in_flight_per_client),
            regions=self._extensions.regions,
            limits=self._extensions.limits,
            cache=self._cache,
            wording=wording,
        )
        methods = [
            *all_methods(
                inside,
                self._extensions,
                allow_control=settings.control_is_allowed(),
                is_ready=self._ready.is_set,
            ),
            *self._health.methods,
            *Reflection(SERVICE_NAMES).methods,
        ]
        access = access_from(settings)
        self._carrier = Carrier(
            settings,
            methods,
            self._scheduler,
            access.check,
            wording,
            AccessLog(is_on=settings.access_log),
        )
        self._carrier.while_idle(IdleTrim(self._gate).look)
        self._metrics.calls.show(self._carrier.counts.totals)
        self._metrics.cache.show(self._cache.statistics)
        self._endpoint: Endpoint | None = None
        self._manager_started = False

    def start(self) -> Started:
        """Start, and return once the repository is served.

        Raises:
            StartError: a port is in use, or a TLS file is unreadable; told before anything is loaded.
            RepositoryError: the repository is not a folder that can be read.
            LoadFailed: `strict` was asked for, and something in the repository is not served as it is there.
        """
        settings = self._settings
        # The ports first: a mistake in them is told at once, not after minutes of loading.
        port = self._carrier.bind()
        probes = Probes(self._carrier.is_live, self._ready.is_set)
        self._endpoint = Endpoint(
            self._metrics.registry, settings.metrics_host, settings.metrics_port, probes
        )
        self._manager.start()
        self._manager_started = True
        # Answering before the models are there: live is told from ready, and inference is UNAVAILABLE, which
        # clients try again, and not refused connections, which look like a broken server.
        self._carrier.start()
        # Ready when everything is loaded, so that a new replica gets no traffic for models it does not have.
        if not self._manager.wait_until_settled(_SETTLE_SECONDS):
            logger.warning("Not everything was loaded within %.0f s; serving what is there.", _SETTLE_SECONDS)
        self._look_at_faults()
        # What is there by now stays: the collector need not look at it again while it serves.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        self._gate.open()
        self._ready.set()
        self._health.serve()
        return self._started(port)

    def _look_at_faults(self) -> None:
        faults = faults_of(self._manager.index())
        if faults and self._settings.strict:
            raise LoadFailed(f"{faults[0]} Start without --strict to serve what can be served.")
        if not self._manager.table.models and self._settings.model_control is ModelControl.POLL:
            logger.warning("%s holds no model that can be served yet.", self._settings.repository)

    def _started(self, port: int) -> Started:
        settings, table = self._settings, self._manager.table
        metrics_port = self._endpoint.port if self._endpoint else 0
        return Started(
            address=address_of(settings.host, port),
            metrics_url=f"http://{settings.metrics_host}:{metrics_port}/metrics",
            models=len(table.models),
            variants=sum(len(model.variants) for model in table.models.values()),
        )

    def stop(self, *, at_once: bool = False) -> bool:
        """Stop: with what was accepted answered, or `at_once`. May follow a `start` that failed.

        Returns:
            Whether nothing was left undone.
        """
        drain_seconds = 0.0 if at_once else self._settings.drain_seconds
        delay_seconds = self._settings.shutdown_delay_seconds if self._ready.is_set() and not at_once else 0.0
        # Probes and load balancers are told first, while everything still works.
        self._ready.clear()
        self._health.stop()
        # They need time to hear of it; until then requests keep coming and are answered.
        time.sleep(delay_seconds)
        # Now nothing new: UNAVAILABLE, which clients send to another replica.
        self._gate.close()
        is_drained = self._gate.wait_until_empty(drain_seconds)
        if not is_drained:
            logger.warning("%d requests were not done in %g s.", self._gate.accepted_count, drain_seconds)
        # Only then the connections, with a moment for the last responses to leave.
        self._carrier.stop(0.0 if at_once else _LAST_CALLS_SECONDS)
        self._scheduler.stop()
        self._extensions.close()
        if self._prober is not None:
            self._prober.close()
        # Nobody asks for models any more; their memory goes last but for the metrics that tell of it.
        if self._manager_started:
            self._manager.stop(0.0 if at_once else _LAST_CALLS_SECONDS)
        if self._endpoint is not None:
            self._endpoint.close()
        return is_drained


def _prober(settings: ServerSettings, gate: Gate) -> Prober:
    return Prober(
        free_bytes=partial(free_bytes, settings.memory_limit_bytes), count_calls=lambda: gate.entered_count
    )


def _manager_settings(settings: ServerSettings) -> ManagerSettings:
    return ManagerSettings(
        settings.repository,
        settings.poll_seconds,
        explicit=settings.model_control is ModelControl.EXPLICIT,
        intra_op_threads=settings.threads,
        load_threads=settings.loads_at_once(),
        watch=settings.watch,
        upload_folder=settings.upload_folder,
        most_upload_bytes=settings.max_upload_bytes,
        memory_guard=settings.memory_guard,
        memory_limit_bytes=settings.memory_limit_bytes,
    )


def _with_entries(factory: RuntimeFactory, settings: ServerSettings) -> RuntimeFactory:
    entries = settings.session_entries
    return FactoryWithEntries(factory, entries) if entries else factory
