"""What the handlers need of whoever looks after the models: the lifecycle's manager, or a test's stand-in."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from flyweight.server.lifecycle.index import IndexEntry
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable

Pick = TypeVar("Pick")


class Models(Protocol):
    """The models of this server; see lifecycle.manager.Manager, whose methods these are."""

    @property
    def table(self) -> RoutingTable:
        """Return the current routing table; never waits."""
        ...

    def lease(
        self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]
    ) -> AbstractContextManager[Held[Pick]]:
        """Hold the variant that `pick` finds in the current table."""
        ...

    def index(self) -> list[IndexEntry]:
        """Return every model and variant that is known."""
        ...

    def load_model(self, name: str, timeout_seconds: float) -> None:
        """Serve a model, and wait for it."""
        ...

    def unload_model(self, name: str, timeout_seconds: float) -> None:
        """Stop serving a model, and wait for that."""
        ...
