"""Tables of variants that take what a test says, and a clock that stands still until it is moved."""

from collections.abc import Callable
from types import MappingProxyType

import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.usage import Usage
from flyweight.server.traffic import Plan, Reason


class MeasuredRuntime(FakeRuntime):
    """A fake that takes what it is told to."""

    def __init__(self, taken: Usage) -> None:
        super().__init__()
        self.taken = taken

    def usage(self) -> Usage:
        return self.taken


class Clock:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table_of() -> Callable[..., RoutingTable]:
    """Return a function that makes a table of the model "tiny" with variants by name, first the baseline."""

    def make(model: str = "tiny", **taken: Usage) -> RoutingTable:
        variants = {}
        for name, usage in taken.items():
            runtime = MeasuredRuntime(usage)
            variants[name] = LoadedVariant(
                model, name, runtime.signature, ModelConfig(), None, runtime, Leases(name)
            )
        weights = tuple((name, 1 / len(variants)) for name in variants)
        plan = Plan(next(iter(variants)), weights, origin=Reason.SPLIT)
        served = ServedModel(model, MappingProxyType(variants), plan)
        return RoutingTable(MappingProxyType({model: served}))

    return make
