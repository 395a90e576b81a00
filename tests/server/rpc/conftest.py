"""Models without a manager: a table in memory that tests replace, over fake runtimes."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import encode_inputs
from flyweight.server.addresses import address_of
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.caching import ResponseCache
from flyweight.server.errors import UnknownModel
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import (
    Held,
    LoadedVariant,
    RoutingTable,
    ServedModel,
    acquire_from,
)
from flyweight.server.repository.serving import ServingPolicy
from flyweight.server.rpc import carrier
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call, DeferredHandler, Failure
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.health import Health
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.method import Deferred, Method
from flyweight.server.rpc.methods import SERVICE_NAMES, all_methods
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.reflection import Reflection
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.runtime.ensemble import StepListener
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.security.clients import ClientLimits
from flyweight.server.settings import ServerSettings, Transport
from flyweight.server.traffic import Plan, Reason

Pick = TypeVar("Pick")

PATIENCE_SECONDS = 30
CALL = Call()
UP_TO_8 = ServingPolicy(max_rows=8)

HALVES = Plan("baseline", (("baseline", 0.5), ("int8", 0.5)), origin=Reason.SPLIT)


class Refused(Exception):  # noqa: N818 -- named by what happened, as the server's own are
    """A deferred RPC was answered with a status."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


def loaded(
    runtime: FakeRuntime,
    name: str = "baseline",
    model: str = "tiny",
    serving: ServingPolicy = UP_TO_8,
    *,
    is_cached: bool = False,
) -> LoadedVariant:
    config = ModelConfig(name=model, platform="onnxruntime_onnx", max_batch_size=8)
    config.response_cache.enable = is_cached
    signature = replace(runtime.signature, max_batch_rows=8)
    leases = Leases(f"{model}/{name}")
    return LoadedVariant(model, name, signature, config, None, runtime, leases, serving)


class FakeModels:
    """Stands in for the manager."""

    def __init__(self, table: RoutingTable) -> None:
        self.table = table
        self.entries = [
            IndexEntry(model.name, name, State.READY, "")
            for model in table.models.values()
            for name in model.variants
        ]
        self.step_listeners: list[StepListener] = []
        self.asked: list[tuple[str, str]] = []
        self.patience: list[float] = []

    def acquire(self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]) -> Held[Pick]:
        return acquire_from(lambda: self.table, pick)

    def watch_steps(self, listener: StepListener) -> None:
        self.step_listeners.append(listener)

    def index(self) -> list[IndexEntry]:
        return self.entries

    def load_model(self, name: str, timeout_seconds: float, upload: object = None) -> None:
        self.asked.append(("load", name))
        self.patience.append(timeout_seconds)
        if name not in self.table.models:
            raise UnknownModel(f"The repository has no model {name!r}.")

    def unload_model(self, name: str, timeout_seconds: float) -> None:
        self.asked.append(("unload", name))


class Notebook(Tallies):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.held: list[Answerer] = []

    def begin(self, answerer: Answerer) -> None:
        super().begin(answerer)
        self.held.append(answerer)

    def end(self, answerer: Answerer) -> None:
        super().end(answerer)
        self.held.remove(answerer)

    def record(self, record: Record, ended: Answerer | None = None) -> None:
        super().record(record, ended)
        if ended is not None:
            self.held.remove(ended)
        self.records.append(record)


@dataclass
class Bench:
    """A server without a transport: its methods, its handlers by RPC name, and all they stand on.

    A deferred handler is called like any other here: it waits for the answer, and raises `Refused`.
    """

    runtimes: Mapping[str, FakeRuntime]
    models: FakeModels
    gate: Gate
    notebook: Notebook
    scheduler: Scheduler
    methods: list[Method]
    handlers: Mapping[str, Callable[..., Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.handlers = {method.path.rpartition("/")[2]: self._asked(method) for method in self.methods}

    def refusal(self, request: ModelInferRequest | bytes, call: Call = CALL) -> Failure:
        """Return the status that ModelInfer refuses a request with."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        with pytest.raises(Refused) as caught:
            self.handlers["ModelInfer"](body, call)
        return caught.value.failure

    def _asked(self, method: Method) -> Callable[..., Any]:
        return self._waiting(method.handler) if isinstance(method, Deferred) else method.handler

    def _waiting(self, handler: DeferredHandler) -> Callable[[bytes, Call], bytes]:
        def ask(body: bytes, call: Call) -> bytes:
            answers: list[bytes | Failure] = []
            answered = threading.Event()

            def reply(answer: bytes | Failure) -> None:
                answers.append(answer)
                answered.set()

            handler(body, call, reply)
            self.scheduler.advance()
            assert answered.wait(PATIENCE_SECONDS)
            (answer,) = answers
            if isinstance(answer, Failure):
                raise Refused(answer)
            return answer

        return ask


def table_of(
    variants: Mapping[str, FakeRuntime],
    plan: Plan = HALVES,
    serving: ServingPolicy = UP_TO_8,
    cached: tuple[str, ...] = (),
) -> RoutingTable:
    loaded_variants = {
        name: loaded(runtime, name, serving=serving, is_cached=name in cached)
        for name, runtime in variants.items()
    }
    model = ServedModel("tiny", MappingProxyType(loaded_variants), plan)
    return RoutingTable(MappingProxyType({"tiny": model}), 1, frozenset({"slow"}))


def make_bench(
    *,
    plan: Plan = HALVES,
    runtimes: Mapping[str, FakeRuntime] | None = None,
    gate: Gate | None = None,
    allow_control: bool = True,
    slots: int = 2,
    serving: ServingPolicy = UP_TO_8,
    client_limit: int = 0,
    cached: tuple[str, ...] = (),
) -> Bench:
    runtimes = runtimes or {"baseline": FakeRuntime(scale=2), "int8": FakeRuntime(scale=3)}
    models, notebook = FakeModels(table_of(runtimes, plan, serving, cached)), Notebook()
    if gate is None:
        gate = Gate(4)
        gate.open()
    scheduler = Scheduler(slots)
    inside = Inside(
        models,  # type: ignore[arg-type] -- it has what the handlers under test ask for
        gate,
        scheduler,
        notebook,
        ClientLimits(client_limit),
        cache=ResponseCache(1_000_000 if cached else 0),
    )
    methods = all_methods(inside, allow_control=allow_control, is_ready=lambda: True)
    return Bench(runtimes, models, gate, notebook, scheduler, methods)


@pytest.fixture
def build() -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**parts: Any) -> Bench:
        benches.append(make_bench(**parts))
        return benches[-1]

    yield make
    for bench in benches:
        bench.scheduler.stop()


@pytest.fixture
def bench(build: Callable[..., Bench]) -> Bench:
    return build()


def infer_request(rows: int = 1, version: str = "", **values: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name="tiny", model_version=version, id="q-1")
    for name, value in values.items():
        request.parameters[name].string_param = value
    encode_inputs(request, {"x": np.ones((rows, 4), np.float32)})
    return request


@pytest.fixture
def make_request() -> Callable[..., ModelInferRequest]:
    return infer_request


class Stuck:
    """A model that runs until it is let go; a first value other than 1 passes at once."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Semaphore(0), threading.Event()

    def __call__(self, inputs: Any) -> dict[str, Any]:
        if (inputs["x"][:, 0] == 1).any():
            self.entered.release()
            assert self.release.wait(PATIENCE_SECONDS)
        return {"y": inputs["x"]}

    def wait_for(self, runs: int = 1) -> None:
        for _ in range(runs):
            assert self.entered.acquire(timeout=PATIENCE_SECONDS)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    """A model that runs until it is let go, which is at the end of the test at the latest."""
    model = Stuck()
    yield model
    model.release.set()


SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=4)


class Served:
    """A carrier over a bench, on a real socket, and a channel to it."""

    def __init__(
        self,
        bench: Bench,
        settings: ServerSettings = SETTINGS,
        methods: tuple[Method, ...] = (),
        **options: Any,
    ) -> None:
        self.bench, self.health, self.transport = bench, Health(), settings.transport
        every = [*bench.methods, *self.health.methods, *Reflection(SERVICE_NAMES).methods, *methods]
        self.carrier = Carrier(settings, every, bench.scheduler, **options)
        self.port = self.carrier.bind()
        self.address = address_of(settings.host, self.port)
        self.carrier.start()
        self.channel = self.connect()

    def connect(self) -> grpc.Channel:
        """Open a connection of its own."""
        return grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    def future(self, path: str, body: bytes = b"", **options: Any) -> Any:
        method: Any = self.channel.unary_unary(path)  # pyright: ignore[reportCallIssue] -- bytes both ways
        return method.future(body, timeout=options.pop("timeout", PATIENCE_SECONDS), **options)

    def call(self, path: str, body: bytes = b"", **options: Any) -> bytes:
        answer: bytes = self.future(path, body, **options).result()
        return answer

    def stream(self, path: str, bodies: Any, **options: Any) -> Any:
        method: Any = self.channel.stream_stream(path)  # pyright: ignore[reportCallIssue] -- bytes both ways
        return method(bodies, timeout=options.pop("timeout", PATIENCE_SECONDS), **options)

    def close(self) -> None:
        self.channel.close()
        self.carrier.stop(0)


@pytest.fixture(params=Transport)
def serve(
    request: pytest.FixtureRequest, build: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Served]]:
    # Tests stop many servers, and each would take this long to notice.
    monkeypatch.setattr(carrier, "_LOOK_SECONDS", 0.02)
    running: list[Served] = []

    def start(
        settings: ServerSettings = SETTINGS, *, methods: tuple[Method, ...] = (), **parts: Any
    ) -> Served:
        options = {name: parts.pop(name) for name in ("guard", "wording") if name in parts}
        settings = replace(settings, transport=request.param)
        running.append(Served(build(**parts), settings, methods, **options))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


def poll_until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    pause = threading.Event()
    for _ in range(100 * PATIENCE_SECONDS):
        if condition():
            return
        pause.wait(0.01)
    assert condition()


@pytest.fixture
def poll() -> Callable[[Callable[[], bool]], None]:
    return poll_until
