"""The routing table: what is served at one moment. Immutable, and replaced whole."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.server.errors import NotReady, UnknownModel, UnknownVariant
from flyweight.server.lifecycle.lease import Leases, VariantRetired
from flyweight.server.repository.snapshot import Fault
from flyweight.server.runtime.seam import MemoryReport, Runtime, Signature
from flyweight.server.traffic.plan import Plan, Role

Pick = TypeVar("Pick")

# Every further try means that the table was replaced in the microseconds since the last; this many in a row
# is not traffic but a fault.
_MOST_TRIES: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVariant:
    """A variant that can answer.

    `signature` is what requests are checked against: the session's, narrowed by config.pbtxt, with the most
    rows of a batch. `config` is complete, whatever the repository left out.
    """

    model: str
    name: str
    signature: Signature
    config: ModelConfig
    manifest: VariantManifest | None
    runtime: Runtime
    leases: Leases

    @property
    def memory(self) -> MemoryReport:
        """Return what it takes."""
        return self.runtime.memory

    @contextmanager
    def lease(self) -> Iterator[Runtime]:
        """Hold the variant for the length of a `with` block; it is not unloaded before the block ends.

        Raises:
            VariantRetired: it was retired since it was looked up; `lease_from` looks again by itself.
        """
        with self.leases.hold():
            yield self.runtime


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """The ready variants of a model by name (at least one), who gets which share, and what is wrong."""

    name: str
    variants: Mapping[str, LoadedVariant]
    plan: Plan
    faults: tuple[Fault, ...] = ()

    @property
    def baseline(self) -> str:
        """Return the name of the baseline."""
        return self.plan.baseline

    def role_of(self, variant: str) -> Role:
        """Tell whether a variant is the baseline or a candidate."""
        return self.plan.role_of(variant)

    def variant(self, name: str) -> LoadedVariant:
        """Return a variant by name; an empty name means the baseline.

        Raises:
            UnknownVariant: it is not ready, or does not exist.
        """
        found = self.variants.get(name or self.baseline)
        if found is None:
            raise UnknownVariant(
                f"The model {self.name!r} has no variant {name!r} ready; "
                f"ready are {', '.join(sorted(self.variants))}."
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class RoutingTable:
    """Every model with a ready variant, by name; `generation` grows with every replacement.

    `waiting` are the models that the repository has and that have no ready variant.
    """

    models: Mapping[str, ServedModel] = field(default_factory=lambda: MappingProxyType({}))
    generation: int = 0
    waiting: frozenset[str] = frozenset()

    def model(self, name: str) -> ServedModel:
        """Return a model by name.

        Raises:
            NotReady: it is in the repository, and none of its variants is ready.
            UnknownModel: it is not there.
        """
        found = self.models.get(name)
        if found is None and name in self.waiting:
            raise NotReady(f"The model {name!r} has no variant ready; the repository index says why.")
        if found is None:
            raise UnknownModel(f"There is no model {name!r}; the models are {self._listed()}.")
        return found

    def _listed(self) -> str:
        return ", ".join(sorted(self.models)) or "none"


@dataclass(frozen=True, slots=True)
class Held(Generic[Pick]):
    """A variant under lease, its runtime, and what the one who picked it had to say."""

    variant: LoadedVariant
    runtime: Runtime
    choice: Pick


@contextmanager
def lease_from(
    table: Callable[[], RoutingTable], pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
) -> Iterator[Held[Pick]]:
    """Hold the variant that `pick` finds in the current table, for the length of a `with` block.

    A variant may be retired between the look-up and the lease; the next table no longer has it, so `pick` is
    asked again, with the new table. No caller sees a swap.

    Args:
        table: returns the current table.
        pick: returns a variant of the table it is given, and anything else the caller wants to keep.

    Raises:
        NotReady: the table kept changing faster than it could be read.
    """
    for _ in range(_MOST_TRIES):
        variant, choice = pick(table())
        try:
            variant.leases.acquire()
        except VariantRetired:
            continue
        break
    else:
        raise NotReady("The model's variants are being replaced; ask again.")
    try:
        yield Held(variant, variant.runtime, choice)
    finally:
        variant.leases.release()
