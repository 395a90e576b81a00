"""Who wants to know what the manager does: metrics and logs. Neither can change what it does."""

from typing import Protocol

from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel


class Observer(Protocol):
    """Told of every event, from the manager's threads; must return soon and raise nothing."""

    def on_scan(self, *, ok: bool) -> None:
        """The repository was read; not `ok` when a part of it could not be."""

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        """A variant was loaded and is about to be published; replacing one of its name counts too."""

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:
        """A variant could not be loaded; whatever was served before still is."""

    def on_unload(self, model: str, variant: str) -> None:
        """A variant's last lease ended and its runtime is closed; a newer one of its name may be served."""

    def on_plan(self, served: ServedModel) -> None:
        """A model's ready variants, plan or faults changed, and the table that says so is published."""

    def on_plan_error(self, model: str, reason: str) -> None:
        """A traffic.yaml cannot be followed; the last good plan stays."""

    def on_table(self, table: RoutingTable) -> None:
        """A table was published; models that are no longer in it are gone."""


class NullObserver:
    """Does nothing; a base for observers who want some of the events."""

    def on_scan(self, *, ok: bool) -> None:
        """Ignore it."""

    def on_load(self, loaded: LoadedVariant, seconds: float) -> None:
        """Ignore it."""

    def on_load_failed(self, model: str, variant: str, reason: str, seconds: float) -> None:
        """Ignore it."""

    def on_unload(self, model: str, variant: str) -> None:
        """Ignore it."""

    def on_plan(self, served: ServedModel) -> None:
        """Ignore it."""

    def on_plan_error(self, model: str, reason: str) -> None:
        """Ignore it."""

    def on_table(self, table: RoutingTable) -> None:
        """Ignore it."""
