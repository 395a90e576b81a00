"""What the handlers need of whoever looks after the models: the lifecycle's manager, or a test's stand-in."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from flyweight.server.lifecycle.index import IndexEntry
from flyweight.server.lifecycle.overlay import Upload
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable, ServedModel
from flyweight.server.runtime.ensemble import StepListener
from flyweight.server.traffic import TrafficFile

Pick = TypeVar("Pick")


class Models(Protocol):
    """The models of this server; see lifecycle.manager.Manager, whose methods these are."""

    @property
    def table(self) -> RoutingTable:
        """Return the current routing table; never waits."""
        ...

    def acquire(self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]) -> Held[Pick]:
        """Lease the variant that `pick` finds in the current table, until it is released."""
        ...

    def watch_steps(self, listener: StepListener) -> None:
        """Tell `listener` of every step that an ensemble runs; to be asked for before the first load."""
        ...

    def index(self) -> list[IndexEntry]:
        """Return every model and variant that is known."""
        ...

    def load_model(self, name: str, timeout_seconds: float, upload: Upload | None = None) -> None:
        """Serve a model, as it is in the repository or as it was uploaded, and wait for it."""
        ...

    def unload_model(self, name: str, timeout_seconds: float) -> None:
        """Stop serving a model, and wait for that."""
        ...

    def set_traffic(
        self, name: str, traffic: TrafficFile, expected_revision: str, timeout_seconds: float
    ) -> ServedModel:
        """Replace the traffic plan of a model, and wait until it is in force."""
        ...

    def promote(self, name: str, variant: str, timeout_seconds: float) -> ServedModel:
        """Make a variant the baseline with all the traffic, and wait until it is."""
        ...

    def roll_back(self, name: str, timeout_seconds: float) -> ServedModel:
        """Undo the last promotion, and wait for that."""
        ...
