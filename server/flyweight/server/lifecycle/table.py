"""The routing table: what is served at one moment. Immutable, and replaced whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.server.batching.lane import Lane
from flyweight.server.errors import NotReady, UnknownModel, UnknownVariant
from flyweight.server.lifecycle.lease import Leases, VariantRetired
from flyweight.server.repository.serving import ServingPolicy
from flyweight.server.repository.snapshot import Fault
from flyweight.server.runtime.seam import MemoryReport, Runtime, Signature
from flyweight.server.sequences.store import Sequences
from flyweight.server.traffic.plan import Plan, Role, TrafficFile

Pick = TypeVar("Pick")

_PLAIN_POLICY: Final = ServingPolicy()

# Every further try means that the table was replaced in the microseconds since the last; this many in a row
# is not traffic but a fault.
_MOST_TRIES: Final = 32

_INSTANCES: Final = count(1)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVariant:
    """A variant that can answer.

    `signature` is what requests are checked against: the session's, narrowed by config.pbtxt, with the most
    rows of a batch. `config` is complete, whatever the repository left out. `serving` is how its requests are
    queued and batched, `labels` the classes' names by output and index. `lane` is their way to the runtime.
    `sequences` are there for a model with state. `notes` are sentences on what was asked for and goes its own
    way here. No two variants ever loaded have the same `instance`.
    """

    model: str
    name: str
    signature: Signature
    config: ModelConfig
    manifest: VariantManifest | None
    runtime: Runtime
    leases: Leases
    serving: ServingPolicy = _PLAIN_POLICY
    labels: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    sequences: Sequences | None = None
    notes: tuple[str, ...] = ()
    instance: int = field(default_factory=lambda: next(_INSTANCES))
    lane: Lane = field(init=False)

    def __post_init__(self) -> None:
        """Open the lane."""
        what = f"{self.model}/{self.name}"
        lane = Lane(what, self.runtime, self.serving, runs_elsewhere=self.runtime.is_elsewhere)
        object.__setattr__(self, "lane", lane)

    @property
    def is_cached(self) -> bool:
        """Tell whether its answers may be given again (response_cache in config.pbtxt)."""
        return self.config.response_cache.enable

    @property
    def memory(self) -> MemoryReport:
        """Return what it takes."""
        return self.runtime.memory

    @property
    def validated_pss_bytes(self) -> int:
        """Return what it took alone when it was published; 0 when nobody measured."""
        return self.manifest.footprint.pss_bytes if self.manifest is not None else 0

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
    """The ready variants of a model by name (at least one), who gets which share, and what is wrong.

    `traffic` is its traffic.yaml, None where there is none or none that can be followed, and `revision` names
    the state of that file.
    """

    name: str
    variants: Mapping[str, LoadedVariant]
    plan: Plan
    faults: tuple[Fault, ...] = ()
    revision: str = ""
    traffic: TrafficFile | None = None

    @property
    def baseline(self) -> str:
        """Return the name of the baseline."""
        return self.plan.baseline

    def role_of(self, variant: str) -> Role:
        """Tell whether a variant is the baseline or a candidate."""
        return self.plan.role_of(variant)

    def has(self, name: str) -> bool:
        """Tell whether `variant` finds something by this name or label."""
        return (self.plan.variant_of(name) or name or self.baseline) in self.variants

    def variant(self, name: str) -> LoadedVariant:
        """Return a variant by name or label; an empty name means the baseline.

        Raises:
            UnknownVariant: it is not ready, or does not exist.
        """
        found = self.variants.get(self.plan.variant_of(name) or name or self.baseline)
        if found is None:
            raise UnknownVariant(
                f"The model {self.name!r} has no variant {name!r} ready; "
                f"ready are {', '.join(sorted(self.variants))}.",
                self.name,
                name,
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
            raise NotReady(f"The model {name!r} has no variant ready; the repository index says why.", name)
        if found is None:
            raise UnknownModel(f"There is no model {name!r}; the models are {self._listed()}.", name)
        return found

    def _listed(self) -> str:
        return ", ".join(sorted(self.models)) or "none"


class Held(Generic[Pick]):
    """A variant under lease, and what the one who picked it had to say.

    No dataclass: each request makes one.
    """

    __slots__ = ("choice", "variant")

    def __init__(self, variant: LoadedVariant, choice: Pick) -> None:
        self.variant = variant
        self.choice = choice

    @property
    def runtime(self) -> Runtime:
        """Return what runs the variant."""
        return self.variant.runtime

    def release(self) -> None:
        """Give the lease back; whoever holds it does so once."""
        self.variant.leases.release()


@contextmanager
def lease_from(
    table: Callable[[], RoutingTable], pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
) -> Iterator[Held[Pick]]:
    """Hold the variant that `pick` finds in the current table, for the length of a `with` block.

    Raises:
        NotReady: see `acquire_from`.
    """
    held = acquire_from(table, pick)
    try:
        yield held
    finally:
        held.release()


def acquire_from(
    table: Callable[[], RoutingTable], pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
) -> Held[Pick]:
    """Lease the variant that `pick` finds in the current table, until it is released.

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
        return Held(variant, choice)
    raise NotReady("The model's variants are being replaced; ask again.")
