"""Models without a manager: a table in memory that tests replace, over fake runtimes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import encode_inputs
from flyweight.server.errors import UnknownModel
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable, ServedModel, lease_from
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Handler
from flyweight.server.rpc.methods import all_methods
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.traffic import Plan, Reason

Pick = TypeVar("Pick")

HALVES = Plan("baseline", (("baseline", 0.5), ("int8", 0.5)), origin=Reason.SPLIT)


def loaded(runtime: FakeRuntime, name: str = "baseline", model: str = "tiny") -> LoadedVariant:
    config = ModelConfig(name=model, platform="onnxruntime_onnx", max_batch_size=8)
    signature = replace(runtime.signature, max_batch_rows=8)
    return LoadedVariant(model, name, signature, config, None, runtime, Leases(f"{model}/{name}"))


class FakeModels:
    """Stands in for the manager."""

    def __init__(self, table: RoutingTable) -> None:
        self.table = table
        self.entries = [
            IndexEntry(model.name, name, State.READY, "")
            for model in table.models.values()
            for name in model.variants
        ]
        self.asked: list[tuple[str, str]] = []
        self.patience: list[float] = []

    def lease(
        self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
    ) -> AbstractContextManager[Held[Pick]]:
        return lease_from(lambda: self.table, pick)

    def index(self) -> list[IndexEntry]:
        return self.entries

    def load_model(self, name: str, timeout_seconds: float) -> None:
        self.asked.append(("load", name))
        self.patience.append(timeout_seconds)
        if name not in self.table.models:
            raise UnknownModel(f"The repository has no model {name!r}.")

    def unload_model(self, name: str, timeout_seconds: float) -> None:
        self.asked.append(("unload", name))


@dataclass
class Notebook:
    """Remembers what it is told."""

    records: list[Record] = field(default_factory=list)
    held: list[Answerer] = field(default_factory=list)

    def begin(self, answerer: Answerer) -> None:
        self.held.append(answerer)

    def end(self, answerer: Answerer) -> None:
        self.held.remove(answerer)

    def record(self, record: Record) -> None:
        self.records.append(record)


@dataclass
class Bench:
    """A server without a transport: its handlers by RPC name, and all they stand on."""

    runtimes: Mapping[str, FakeRuntime]
    models: FakeModels
    gate: Gate
    notebook: Notebook
    handlers: Mapping[str, Handler]


def table_of(variants: Mapping[str, FakeRuntime], plan: Plan = HALVES) -> RoutingTable:
    loaded_variants = {name: loaded(runtime, name) for name, runtime in variants.items()}
    model = ServedModel("tiny", MappingProxyType(loaded_variants), plan)
    return RoutingTable(MappingProxyType({"tiny": model}), 1, frozenset({"slow"}))


def make_bench(
    *,
    plan: Plan = HALVES,
    runtimes: Mapping[str, FakeRuntime] | None = None,
    gate: Gate | None = None,
    allow_control: bool = True,
) -> Bench:
    runtimes = runtimes or {"baseline": FakeRuntime(scale=2), "int8": FakeRuntime(scale=3)}
    models, notebook = FakeModels(table_of(runtimes, plan)), Notebook()
    if gate is None:
        gate = Gate(4, 2)
        gate.open()
    methods = all_methods(models, gate, notebook, allow_control=allow_control, is_ready=lambda: True)
    handlers = {method.path.rpartition("/")[2]: method.handler for method in methods}
    return Bench(runtimes, models, gate, notebook, handlers)


@pytest.fixture
def bench() -> Bench:
    return make_bench()


def infer_request(rows: int = 1, version: str = "", **values: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name="tiny", model_version=version, id="q-1")
    for name, value in values.items():
        request.parameters[name].string_param = value
    encode_inputs(request, {"x": np.ones((rows, 4), np.float32)})
    return request


@pytest.fixture
def make_request() -> Callable[..., ModelInferRequest]:
    return infer_request


@pytest.fixture
def build() -> Callable[..., Bench]:
    return make_bench
